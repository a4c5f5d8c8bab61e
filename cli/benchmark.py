"""The `benchmark` commands: a table, then one line of JSON."""

import json
import re
from pathlib import Path
from typing import Annotated

import typer

from attengait.cli.options import STORE_HELP, StoreArgument, parse_numbers
from attengait.cli.output import say_json, say_lines
from attengait.cli.progress import ProgressLine
from attengait.errors import AttenGaitError, ParameterError
from attengait.system.machine import usable_cores

app = typer.Typer(
    help="Measure how fast this machine is: medians and ranges. The last line is JSON.", no_args_is_help=True
)

BatchSizeOption = Annotated[int, typer.Option(help="Clips of a batch.")]
ClipFramesOption = Annotated[int, typer.Option(help="Frames of a clip.")]
BatchesOption = Annotated[int, typer.Option(help="Batches of one measurement.")]
RepeatsOption = Annotated[int, typer.Option(help="How often each is measured; the median is reported.")]
PlotOption = Annotated[Path | None, typer.Option(help="Also draw a plot of it into this PNG file.")]


@app.command("loader")
def loader(
    stores: Annotated[list[str], typer.Argument(metavar="STORE...", help=STORE_HELP)],
    batch_size: BatchSizeOption = 64,
    clip_frames: ClipFramesOption = 30,
    batches: Annotated[int, typer.Option(help="Batches of one measurement; slow ways are measured with fewer.")] = 320,
    repeats: RepeatsOption = 5,
    baselines: Annotated[
        bool,
        typer.Option(
            "--baselines",
            help="Also torch DataLoaders over pickles, HDF5 files and one .npy, made from the store in a temporary "
            "folder (TMPDIR), at most 3 GiB.",
        ),
    ] = False,
    workers: Annotated[
        str | None,
        typer.Option(help="With --baselines: workers of the DataLoaders, with commas.", show_default="1,2,4"),
    ] = None,
    peers: Annotated[
        str,
        typer.Option(
            help="Also these loaders of others, with commas, over files made from the store in a temporary folder: "
            "litdata, mds, arrayrecord, grain, webdataset, ffcv. Those that are not installed are named.",
            show_default="none",
        ),
    ] = "",
    cold: Annotated[
        bool, typer.Option("--cold", help="Measure also after the files are removed from the page cache.")
    ] = False,
    plot: PlotOption = None,
) -> None:
    """Training clips per second: our streams, and, to compare, a copy in memory, TensorStore, zarr-python and
    baselines.

    The last line is one JSON object, or a list of them for several stores.
    """
    from attengait.benchmarks.loader import benchmark_loader, format_table
    from attengait.benchmarks.plots import check_plot, plot_rates

    if workers is not None and not baselines:
        raise ParameterError(f"workers is {workers!r}, but must be left out without --baselines")
    if plot is not None:
        check_plot(plot)
    reports = []
    for store in stores:
        report = benchmark_loader(
            store,
            baselines=baselines,
            peers=peers.split(",") if peers else (),
            workers=parse_numbers("workers", "1,2,4" if workers is None else workers),
            cold=cold,
            batch_size=batch_size,
            clip_frames=clip_frames,
            num_batches=batches,
            repeats=repeats,
        )
        say_lines(f"{format_table(report)}\n")
        reports.append(report)
    if plot is not None:
        plot_rates(reports, plot, unit="clips_per_s", ours="stream")
    say_json(json.dumps(reports[0] if len(reports) == 1 else reports))


@app.command("train")
def train(
    store: Annotated[
        str | None,
        typer.Argument(metavar="[STORE]", help="What to train on; without it: synthetic clips on the device."),
    ] = None,
    size: Annotated[str, typer.Option(help="Size of the model: tiny, small, medium or large.")] = "small",
    subjects_per_batch: Annotated[int, typer.Option(help="Subjects of a batch.")] = 8,
    clips_per_subject: Annotated[int, typer.Option(help="Clips of each subject of a batch.")] = 8,
    clip_frames: ClipFramesOption = 30,
    precision: Annotated[str, typer.Option(help="Precisions, with commas.")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    cache: Annotated[
        str | None,
        typer.Option(
            help="Where the frames of a store are kept: auto, none, host, gpu, with commas.", show_default="auto"
        ),
    ] = None,
    cuda_graphs: Annotated[
        str | None,
        typer.Option(help="With CUDA graphs, without, or both: true,false.", show_default="true"),
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any other setting of training.")
    ] = None,
    steps: Annotated[int, typer.Option(help="Steps of one measurement.")] = 10,
    repeats: RepeatsOption = 5,
    profile: Annotated[
        Path | None, typer.Option(help="Also write a table of what takes the time of a step into this file.")
    ] = None,
) -> None:
    """Training's clips per second, the milliseconds of each part of a step, memory, and how much of the device's matrix
    rate is used."""
    from attengait.benchmarks.train import benchmark_train, format_table
    from attengait.system.files import check_target
    from attengait.training.config import parse_assignments

    if profile is not None:
        check_target(profile, "profile")
    options = {
        "size": size,
        "subjects_per_batch": subjects_per_batch,
        "clips_per_subject": clips_per_subject,
        "clip_frames": clip_frames,
        "device": device,
    }
    with ProgressLine() as line:
        report = benchmark_train(
            store,
            settings=options | parse_assignments(settings or []),
            precisions=precision.split(","),
            caches=("auto",) if cache is None else cache.split(","),
            cuda_graphs=None
            if cuda_graphs is None
            else [parse_assignments([f"cuda_graphs={word}"])["cuda_graphs"] for word in cuda_graphs.split(",")],
            num_steps=steps,
            repeats=repeats,
            profile=profile,
            progress=line,
        )
    say_lines(format_table(report))
    say_json(json.dumps(report))


@app.command("evaluate")
def evaluate(
    gallery: Annotated[int, typer.Option(help="Items of the gallery.")] = 250_000,
    probes: Annotated[int, typer.Option(help="Probes.")] = 24_000,
    distances: Annotated[
        str, typer.Option("--distance", help="l2, l1, part-l2, part-cosine: one or more, with commas.")
    ] = "l2",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
) -> None:
    """Time and memory of evaluating random embeddings, and the rate against a plain matrix product in the same run."""
    from attengait.benchmarks.evaluate import benchmark_evaluate, format_table

    with ProgressLine() as line:
        report = benchmark_evaluate(
            gallery=gallery, probes=probes, distances=tuple(distances.split(",")), device=device, progress=line
        )
    say_lines(format_table(report))
    say_json(json.dumps(report))


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
    video: Annotated[
        bool, typer.Option("--video", help="Measure from videos of the same frames (MPEG-4), too.")
    ] = False,
    readers: Annotated[
        str | None,
        typer.Option(
            help="Measure reading alone, too, as a GPU needs it: so many threads, and so many processes, with commas.",
            show_default="none",
        ),
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
        video=video,
        readers=parse_numbers("readers", readers) if readers else (),
        repeats=repeats,
        dataset=dataset,
    )
    say_lines(format_table(report))
    say_json(json.dumps(report))


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
    say_lines(format_table(report))
    say_json(json.dumps(report))


@app.command("agreement")
def agreement(
    size: Annotated[str, typer.Option(help="Size of the synthetic pictures.")] = "320x240",
    frames: Annotated[Path | None, typer.Option(help="Folder of extracted video frames to compare on as well.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the table there too (Markdown).")] = None,
) -> None:
    """How closely each flow backend agrees with OpenCV, for kinds of motion and sets of parameters; in pixels."""
    from attengait.benchmarks.agreement import format_agreement, measure_agreement
    from attengait.system.files import check_target, write_atomically

    if out is not None:
        check_target(out, "out")
    width, height = _parse_size("size", size)
    report = measure_agreement(height=height, width=width, frames=frames)
    table = format_agreement(report)
    if out is not None:
        write_atomically(out, (table + "\n").encode())
    say_lines(table)
    say_json(json.dumps(report))


@app.command("scale")
def scale(
    sequences: Annotated[str, typer.Option(help="How many, with commas.")] = "1000,10000,100000,128671,1000000",
    files: Annotated[int, typer.Option(help="How many files a process may have open.")] = 256,
    batches: BatchesOption = 40,
    repeats: RepeatsOption = 3,
    plot: PlotOption = None,
) -> None:
    """How opening, memory, planning a batch and clips per second change with the number of sequences, up to GREW's
    and more.

    The stores are made for this; all of their shards are links to one file.
    """
    from attengait.benchmarks.plots import check_plot, plot_curves
    from attengait.benchmarks.scale import CURVES, benchmark_scale, format_table

    if plot is not None:
        check_plot(plot)
    sizes = parse_numbers("sequences", sequences)
    report = benchmark_scale(sizes, max_files=files, num_batches=batches, repeats=repeats)
    if plot is not None:
        plot_curves(report, plot, x="sequences", curves=CURVES)
    say_lines(format_table(report))
    say_json(json.dumps(report))


@app.command("layout")
def layout(
    store: StoreArgument,
    codecs: Annotated[
        str, typer.Option(help="none, lz4, zstd, lz4-bytes, lz4-bits (shuffled by Blosc), with commas.")
    ] = "none,lz4,zstd,lz4-bytes,lz4-bits",
    chunks: Annotated[str, typer.Option(help="Frames of a chunk, with commas.")] = "8,16,32",
    shards: Annotated[
        str,
        typer.Option(help="Frames of a shard, separated by commas; 0 means the length that preprocess would choose."),
    ] = "0",
    clip_frames: ClipFramesOption = 30,
    batches: BatchesOption = 40,
    repeats: RepeatsOption = 5,
    out: Annotated[Path | None, typer.Option(help="Write the table there too (Markdown).")] = None,
) -> None:
    """How codec, chunks and shards change the size of a store and the clips per second, at random and in sequence."""
    from itertools import product

    from attengait.benchmarks.layout import Layout, benchmark_layout, format_table
    from attengait.system.files import check_target, write_atomically

    if out is not None:
        check_target(out, "out")
    lengths = product(codecs.split(","), parse_numbers("chunks", chunks), parse_numbers("shards", shards))
    layouts = [Layout(codec=codec, chunk_frames=chunk, shard_frames=shard) for codec, chunk, shard in lengths]
    report = benchmark_layout(store, layouts, clip_frames=clip_frames, num_batches=batches, repeats=repeats)
    table = format_table(report)
    if out is not None:
        write_atomically(out, (table + "\n").encode())
    say_lines(table)
    say_json(json.dumps(report))


@app.command("ranks")
def ranks(
    store: StoreArgument,
    processes: Annotated[str, typer.Option(help="Numbers of processes, with commas.")] = "1,2",
    one_core_each: Annotated[
        bool, typer.Option("--one-core-each/--all-cores", help="What a process may run on.")
    ] = True,
    batch_size: Annotated[int, typer.Option(help="Clips of a batch of one process.")] = 64,
    clip_frames: ClipFramesOption = 30,
    batches: BatchesOption = 40,
    repeats: RepeatsOption = 5,
) -> None:
    """Clips per second of several processes together; each streams its part of every batch."""
    from attengait.benchmarks.ranks import benchmark_ranks, format_table

    report = benchmark_ranks(
        store,
        processes=parse_numbers("processes", processes),
        one_core_each=one_core_each,
        batch_size=batch_size,
        clip_frames=clip_frames,
        num_batches=batches,
        repeats=repeats,
    )
    say_lines(format_table(report))
    say_json(json.dumps(report))


@app.command("soak")
def soak(
    store: StoreArgument,
    clips: Annotated[int, typer.Option(help="Clips to stream.")] = 10_000_000,
    batch_size: BatchSizeOption = 64,
    clip_frames: ClipFramesOption = 30,
) -> None:
    """Memory, threads and open files while millions of clips are streamed. The exit status is 1 if any of them
    grows."""
    from attengait.benchmarks.soak import benchmark_soak, format_table

    with ProgressLine() as line:
        report = benchmark_soak(store, num_clips=clips, batch_size=batch_size, clip_frames=clip_frames, progress=line)
    say_lines(format_table(report))
    say_json(json.dumps(report))
    if report["growth"]:
        raise AttenGaitError(f"streaming does not keep what it takes: {'; '.join(report['growth'])}")


def _parse_size(name: str, text: str) -> tuple[int, int]:
    """Width and height from such as 320x240."""
    found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text.strip(), re.ASCII)
    if found is None:
        raise ParameterError(f"{name} is {text!r}, but must be width x height in pixels, such as 320x240")
    return int(found[1]), int(found[2])
