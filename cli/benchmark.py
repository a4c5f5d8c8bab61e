"""The `benchmark` commands: a table, then one line of JSON."""

import json
from pathlib import Path
from typing import Annotated

import typer

from attengait.cli.data import parse_numbers
from attengait.machine import usable_cores

app = typer.Typer(help="Measure throughput on this machine: medians and spread, last line JSON.", no_args_is_help=True)


@app.command("loader")
def loader(
    stores: Annotated[list[Path], typer.Argument(metavar="STORE...", help="Stores made by `attengait preprocess`.")],
    batch_size: Annotated[int, typer.Option(help="Clips of a batch.")] = 64,
    clip_frames: Annotated[int, typer.Option(help="Frames of a clip.")] = 30,
    batches: Annotated[int, typer.Option(help="Batches of one measurement.")] = 40,
    repeats: Annotated[int, typer.Option(help="Measurements; the median counts.")] = 5,
) -> None:
    """Training clips per second: the stream, beside a plain gather in memory, TensorStore and zarr-python.

    The last line is one JSON object, or a list of them for several stores.
    """
    from attengait.benchmarks.loader import benchmark_loader, format_table

    reports = []
    for store in stores:
        report = benchmark_loader(
            store, batch_size=batch_size, clip_frames=clip_frames, num_batches=batches, repeats=repeats
        )
        print(format_table(report), end="\n\n")
        reports.append(report)
    print(json.dumps(reports[0] if len(reports) == 1 else reports))


@app.command("preprocess")
def preprocess(
    frames: Annotated[Path, typer.Option(help="Folder of the extracted video frames.")],
    silhouettes: Annotated[Path, typer.Option(help="Folder of the silhouettes.")],
    dataset: Annotated[str, typer.Option(help="How the folders are laid out.")] = "casia-b",
    workers: Annotated[
        str | None, typer.Option(help="Numbers of processes to try, with commas.", show_default="1 and all cores")
    ] = None,
    repeats: Annotated[int, typer.Option(help="Measurements; the median counts.")] = 3,
) -> None:
    """Flow images per second of the whole of preprocessing, and the milliseconds of each stage."""
    from attengait.benchmarks.preprocess import benchmark_preprocess, format_table

    numbers = parse_numbers("workers", workers) if workers else tuple(sorted({1, usable_cores()}))
    report = benchmark_preprocess(frames, silhouettes, workers=numbers, repeats=repeats, dataset=dataset)
    print(format_table(report))
    print(json.dumps(report))
