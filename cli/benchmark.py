"""The `benchmark` commands: a table, then one line of JSON."""

import json
import re
from pathlib import Path
from typing import Annotated

import typer

from attengait.cli.data import parse_numbers
from attengait.errors import ParameterError
from attengait.machine import usable_cores

app = typer.Typer(help="Measure throughput on this machine: medians and spread, last line JSON.", no_args_is_help=True)

RepeatsOption = Annotated[int, typer.Option(help="Measurements; the median counts.")]
PlotOption = Annotated[Path | None, typer.Option(help="Draw it there too (PNG).")]


@app.command("loader")
def loader(
    stores: Annotated[list[Path], typer.Argument(metavar="STORE...", help="Stores made by `attengait preprocess`.")],
    batch_size: Annotated[int, typer.Option(help="Clips of a batch.")] = 64,
    clip_frames: Annotated[int, typer.Option(help="Frames of a clip.")] = 30,
    batches: Annotated[int, typer.Option(help="Batches of one measurement; slow ways get fewer.")] = 40,
    repeats: RepeatsOption = 5,
    baselines: Annotated[
        bool,
        typer.Option(
            "--baselines",
            help="Also torch DataLoaders over pickles, HDF5 files and one .npy, made from the store in a temporary "
            "folder (TMPDIR), at most 3 GiB.",
        ),
    ] = False,
    workers: Annotated[str, typer.Option(help="With --baselines: workers of the DataLoaders, with commas.")] = "1,2,4",
    cold: Annotated[
        bool, typer.Option("--cold", help="Also with the page cache emptied of the files before each measurement.")
    ] = False,
    plot: PlotOption = None,
) -> None:
    """Training clips per second: the stream, beside a plain gather in memory, TensorStore, zarr-python and baselines.

    The last line is one JSON object, or a list of them for several stores.
    """
    from attengait.benchmarks.loader import benchmark_loader, format_table
    from attengait.benchmarks.plots import check_plot, plot_rates

    if plot is not None:
        check_plot(plot)
    reports = []
    for store in stores:
        report = benchmark_loader(
            store,
            baselines=baselines,
            workers=parse_numbers("workers", workers),
            cold=cold,
            batch_size=batch_size,
            clip_frames=clip_frames,
            num_batches=batches,
            repeats=repeats,
        )
        print(format_table(report), end="\n\n")
        reports.append(report)
    if plot is not None:
        plot_rates(reports, plot, unit="clips_per_s", ours="stream")
    print(json.dumps(reports[0] if len(reports) == 1 else reports))


@app.command("preprocess")
def preprocess(
    frames: Annotated[Path, typer.Option(help="Folder of the extracted video frames.")],
    silhouettes: Annotated[Path, typer.Option(help="Folder of the silhouettes.")],
    dataset: Annotated[str, typer.Option(help="How the folders are laid out.")] = "casia-b",
    workers: Annotated[
        str | None, typer.Option(help="Numbers of processes to try, with commas.", show_default="1 and all cores")
    ] = None,
    flows: Annotated[
        str | None, typer.Option("--flow", help="Flow backends, with commas.", show_default="all that can be used")
    ] = None,
    sizes: Annotated[
        str | None,
        typer.Option(help="Sizes to resize the first sequences to, with commas.", show_default="as they are"),
    ] = None,
    repeats: RepeatsOption = 3,
) -> None:
    """Flow images per second of the whole of preprocessing, and the milliseconds of each stage."""
    from attengait.benchmarks.preprocess import benchmark_preprocess, format_table

    numbers = parse_numbers("workers", workers) if workers else tuple(sorted({1, usable_cores()}))
    report = benchmark_preprocess(
        frames,
        silhouettes,
        flows=flows.split(",") if flows else None,
        workers=numbers,
        sizes=[_parse_size("sizes", size) for size in sizes.split(",")] if sizes else (),
        repeats=repeats,
        dataset=dataset,
    )
    print(format_table(report))
    print(json.dumps(report))


@app.command("flow")
def flow(
    flows: Annotated[
        str | None, typer.Option("--flow", help="Flow backends, with commas.", show_default="all that can be used")
    ] = None,
    sizes: Annotated[str, typer.Option(help="Sizes of the pictures, with commas.")] = "64x64,320x240,1280x720",
    batches: Annotated[str, typer.Option(help="Pairs of frames given at once, with commas.")] = "1,32",
    repeats: RepeatsOption = 5,
) -> None:
    """Pairs of frames per second of each flow backend, OpenCV among them; on a GPU each kernel's share as well."""
    from attengait.benchmarks.flow import benchmark_flow, format_table

    report = benchmark_flow(
        flows=flows.split(",") if flows else None,
        sizes=[_parse_size("sizes", size) for size in sizes.split(",")],
        batches=parse_numbers("batches", batches),
        repeats=repeats,
    )
    print(format_table(report))
    print(json.dumps(report))


@app.command("agreement")
def agreement(
    size: Annotated[str, typer.Option(help="Size of the synthetic pictures.")] = "320x240",
    frames: Annotated[Path | None, typer.Option(help="Folder of extracted video frames to compare on as well.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the table there too (Markdown).")] = None,
) -> None:
    """How closely each flow backend agrees with OpenCV, for kinds of motion and sets of parameters; in pixels."""
    from attengait.benchmarks.agreement import format_agreement, measure_agreement
    from attengait.files import check_target, write_atomically

    if out is not None:
        check_target(out)
    width, height = _parse_size("size", size)
    report = measure_agreement(height=height, width=width, frames=frames)
    table = format_agreement(report)
    print(table)
    if out is not None:
        write_atomically(out, (table + "\n").encode())
    print(json.dumps(report))


def _parse_size(name: str, text: str) -> tuple[int, int]:
    """Width and height from such as 320x240."""
    found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text.strip())
    if found is None:
        raise ParameterError(f"{name} must be such as 320x240 (width x height, in pixels), got {text!r}")
    return int(found[1]), int(found[2])
