"""Commands about data: synth, datasets, preprocess, info, verify, show."""

import json
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table
from rich.text import Text

from attengait.cli.options import (
    CHUNK_FRAMES,
    ChunkOption,
    CodecOption,
    DryRunOption,
    OutOption,
    StoreArgument,
    WorkersOption,
    parse_gpus,
    parse_numbers,
)
from attengait.cli.output import cell, cell_of_lines, say, say_json, say_lines, say_table
from attengait.cli.progress import ProgressLine
from attengait.errors import AttenGaitError, ParameterError
from attengait.system.machine import usable_cores
from attengait.system.plugins import PluginError

if TYPE_CHECKING:
    from attengait.preprocessing.recipe import Recipe
    from attengait.preprocessing.run import PreprocessConfig


_MOST_LINES = 30
"""Of one entry of `info`."""


def synth(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write: OUT/rgb (or OUT/video) and OUT/silh.")],
    subjects: Annotated[int, typer.Option(help="How many people.")] = 10,
    walks: Annotated[
        str,
        typer.Option(
            help="Walks of each person, with commas: nm (normal), bg (with bag) or cl (in a coat), and a number."
        ),
    ] = "nm-01,nm-02,nm-03,nm-04,nm-05,nm-06,bg-01,bg-02,cl-01,cl-02",
    views: Annotated[
        str,
        typer.Option(
            help="Camera angles in degrees, with commas. 0: the person walks towards the camera; 90: the side."
        ),
    ] = "0,18,36,54,72,90,108,126,144,162,180",
    frames: Annotated[int, typer.Option(help="Frames of each sequence.")] = 60,
    seed: Annotated[int, typer.Option(help="The same seed gives the same people and the same pictures.")] = 0,
    identity: Annotated[
        Literal["all", "rhythm"],
        typer.Option(
            help="What a person is known by: all (body, gait and skin), or rhythm, how often a second the trunk rocks. "
            "With rhythm, all people look the same in one walk. A model must see time to tell them apart well."
        ),
    ] = "all",
    video: Annotated[
        bool, typer.Option("--video", help="Write the frames as videos, without loss, instead of pictures.")
    ] = False,
    workers: WorkersOption = None,
) -> None:
    """Make synthetic walkers: frames and silhouettes, in the folders and names of CASIA-B."""
    from attengait.synth import SynthConfig, write_walkers

    config = SynthConfig(
        subjects=subjects,
        walks=tuple(word.strip() for word in walks.split(",") if word.strip()),
        views=parse_numbers("views", views),
        frames=frames,
        seed=seed,
        identity=identity,
        video=video,
        workers=workers if workers is not None else usable_cores(),
    )
    total = config.num_frames
    with ProgressLine() as line:
        summary = write_walkers(out, config, progress=line)
    say(f"{total:,} frames of {subjects} walkers: {summary.frames} and {summary.silhouettes}")


def datasets(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """List the data sets that can be read: what each needs, where it is asked for, and its licence."""
    from attengait.datasets import dataset_names, find_dataset

    known: dict[str, dict[str, str]] = {}
    for name in dataset_names():
        try:
            known[name] = find_dataset(name).about
        except PluginError as error:  # another package's fault hides nothing else
            known[name] = {"error": str(error)}
    if as_json:
        say_json(json.dumps(known, indent=2))
        return
    table = Table(show_header=False, show_lines=True)
    for name, about in known.items():
        lines = (f"{key}: {value}" if key != "title" else value for key, value in about.items() if value)
        table.add_row(cell(name), cell_of_lines(lines))
    say_table(table)


def preprocess(
    context: typer.Context,
    dataset: Annotated[
        str,
        typer.Argument(
            metavar="DATASET",
            help="The data set, which decides the folders and file names that are read: see attengait datasets.",
        ),
    ],
    out: OutOption,
    silhouettes: Annotated[Path | None, typer.Option(help="Folder of the silhouettes.")] = None,
    flow_images: Annotated[
        Path | None,
        typer.Option(help="Folder of ready flow images, as grew and oumvlp have them. No flow is computed then."),
    ] = None,
    frames: Annotated[
        Path | None, typer.Option(help="Folder of the frames: videos, or pictures extracted from them. Flow needs it.")
    ] = None,
    layout: Annotated[
        str | None,
        typer.Option(
            metavar="PATTERN",
            help="With folders: how paths are made, such as '{subject}/{walk}/{view}/{frame}.png', or "
            "'{subject}/{walk}_{view}.mp4' for videos. Further fields become columns of the store.",
        ),
    ] = None,
    silhouette_layout: Annotated[
        str | None,
        typer.Option(metavar="PATTERN", help="With folders: the same for silhouettes.", show_default="as --layout"),
    ] = None,
    constant: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FIELD=VALUE",
            help="With folders: a field that the paths lack, such as view=090; may be repeated.",
        ),
    ] = None,
    modality: Annotated[
        Literal["flow", "silhouette", "silhouette+flow"],
        typer.Option(help="What is stored: optical flow, silhouettes alone, or both in one picture."),
    ] = "flow",
    flow: Annotated[
        str,
        typer.Option(
            help="Flow back end: opencv, cpu, cuda, opencv-cuda, nvof, or auto. auto is the one that the store was "
            "begun with; for a new store it is what suits this machine (see attengait doctor)."
        ),
    ] = "auto",
    farneback: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="Change one of Farneback's parameters (pyr_scale, levels, winsize, iterations, poly_n, poly_sigma, "
            "window=box or gaussian); may be repeated.",
        ),
    ] = None,
    encoding: Annotated[
        str,
        typer.Option(
            help="How flow is stored: colour (as published), uv (two signed channels that keep the speed) or uvm (with "
            "the magnitude)."
        ),
    ] = "colour",
    like: Annotated[
        str | None,
        typer.Option(
            metavar="STORE",
            help="Make images as those of another store: its modality, encoding, gap, flow back end and parameters. "
            "For stores that must be equal on several machines.",
            show_default="none",
        ),
    ] = None,
    codec: CodecOption = "none",
    gap: Annotated[
        Literal["skip", "bridge"],
        typer.Option(help="If frame numbers are missing: skip the gap, or bridge it as the published program does."),
    ] = "skip",
    silhouette_level: Annotated[
        float,
        typer.Option(
            help="Where between background (0) and person (1) grey levels of a silhouette, such as the noise of JPEG, "
            "begin to be the person."
        ),
    ] = 0.5,
    silhouette_offset: Annotated[
        int | None,
        typer.Option(
            help="Added to the numbers of the silhouettes: 1 if they are numbered from 0, the frames from 1. 0 takes "
            "the numbers as they are.",
            show_default="0, but such a difference is refused",
        ),
    ] = None,
    chunk_frames: ChunkOption = CHUNK_FRAMES,
    workers: Annotated[
        int | None,
        typer.Option(
            help="Processes, by default one for each usable core. On GPUs: the processes that read for each GPU, by "
            "default the usable cores shared among the GPUs, less one for each, and at most 16."
        ),
    ] = None,
    gpus: Annotated[
        str | None,
        typer.Option(
            metavar="N|LIST",
            help="With --flow cuda or nvof: the number of GPUs, or a list such as 0,2 (counted from 0). Each gets one "
            "process.",
            show_default="1",
        ),
    ] = None,
    dry_run: DryRunOption = False,
) -> None:
    """Turn frames and silhouettes into flow images, or silhouettes into crops, in one Zarr store.

    grew and oumvlp are distributed as flow images, which are kept.

    It can be stopped or killed at any moment: the same command continues.
    """
    from attengait.datasets import Folders
    from attengait.pipelines.preprocess.run import choose_executor
    from attengait.preprocessing.flow import FlowRecipe, SilhouetteFlowRecipe
    from attengait.preprocessing.flow_choice import choose_flow, farneback_parameters
    from attengait.preprocessing.like import recipe_like
    from attengait.preprocessing.ready import ready_recipe
    from attengait.preprocessing.run import PreprocessConfig
    from attengait.preprocessing.silhouette import SilhouetteRecipe

    def refuse_options(reason: str, *names: str) -> None:
        for name in names:
            source = context.get_parameter_source(name)
            if source is not None and source.name != "DEFAULT":
                option = name.replace("_", "-")
                raise ParameterError(f"--{option} is given, but must be left out {reason}")

    recipe: Recipe
    if (ready := ready_recipe(dataset, modality)) is not None:
        why = f"for {dataset}, whose pictures are ready"
        refuse_options(why, "like", "flow", "farneback", "gap", "encoding", "gpus")
        refuse_options(why, "silhouette_level", "silhouette_offset")
        recipe = ready
    elif like is not None:
        refuse_options("with --like", "modality", "flow", "farneback", "gap", "encoding")
        refuse_options("with --like", "silhouette_level")
        recipe = recipe_like(like)
        if silhouette_offset is not None:
            if isinstance(recipe, FlowRecipe):
                recipe = replace(recipe, silhouette_offset=silhouette_offset)
            else:
                refuse_options("for the modality silhouette", "silhouette_offset")
    elif modality == "silhouette":
        names = ("flow", "farneback", "gap", "encoding", "gpus", "silhouette_offset")
        refuse_options("for the modality silhouette", *names)
        recipe = SilhouetteRecipe(silhouette_level=silhouette_level)
    else:
        kind = FlowRecipe if modality == "flow" else SilhouetteFlowRecipe
        flow = choose_flow(flow, out)
        parameters = farneback_parameters(flow, farneback or [])
        recipe = kind(
            flow=flow,
            farneback=parameters,
            gap=gap,
            encoding=encoding,
            silhouette_level=silhouette_level,
            silhouette_offset=silhouette_offset,
        )
    config = PreprocessConfig(
        dataset=dataset,
        folders=Folders(
            frames=frames,
            silhouettes=silhouettes,
            flow_images=flow_images,
            layout=layout,
            silhouette_layout=silhouette_layout,
            constants=tuple(constant) if constant else None,
        ),
        out=out,
        recipe=recipe,
        executor=choose_executor(recipe, workers=workers, gpus=parse_gpus(gpus)),
        codec=codec,
        chunk_frames=chunk_frames,
    )
    make_store(config, dry_run=dry_run)


def make_store(config: "PreprocessConfig", *, dry_run: bool) -> None:
    """Make a store with a live line and print the summary, or print what would be done."""
    from attengait.preprocessing.run import plan_preprocessing, run_preprocessing
    from attengait.store.skipped import NothingMadeError, count_skipped, lines_of

    try:
        if dry_run:
            say_lines(plan_preprocessing(config))
            return
        with ProgressLine() as line:
            summary = run_preprocessing(config, line)
    except NothingMadeError as error:
        for reasons in lines_of(count_skipped(error.skipped)):
            say_lines(reasons)
        raise
    say_lines(summary)


def info(
    store: StoreArgument,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Say what a store holds and how it was made."""
    from attengait.store import open_store
    from attengait.store.digest import NO_DIGEST
    from attengait.store.summary import summarise

    summary = summarise(open_store(store))
    if as_json:
        say_json(json.dumps(summary, indent=2))
        return
    table = Table(title=cell(summary["path"]), show_header=False, title_justify="left")
    for key, value in summary.items():
        table.add_row(cell(key.replace("_", " ")), _cell(value))
    say_table(table)
    if summary["digest"] is None:
        say(NO_DIGEST)


def verify(store: StoreArgument) -> None:
    """Check all checksums and index records of a store. Damage is listed, and the exit status is then 1."""
    from attengait.store import open_store
    from attengait.store.digest import NO_DIGEST, has_digest
    from attengait.store.verify import verify as find_damage

    opened = open_store(store)
    place = opened.location  # its text has no secrets, such as the query of a URL
    with ProgressLine() as line:
        findings = find_damage(opened, progress=line)
    if findings:
        for finding in findings:
            say(finding)
        raise AttenGaitError(f"{place} is damaged: {len(findings)} findings")
    say(f"{place}: every checksum and every index record is right")
    if not has_digest(opened.attributes):
        say(f"But {NO_DIGEST}")


def show(
    store: StoreArgument,
    out: Annotated[Path, typer.Option(help="PNG file to write.")],
    rows: Annotated[int, typer.Option(min=1, help="How many sequences, evenly picked from the store.")] = 12,
    columns: Annotated[int, typer.Option(min=1, help="How many images of each, evenly picked from the sequence.")] = 12,
) -> None:
    """Draw some images of a store: a contact sheet, one row for each sequence."""
    from attengait.report.contact_sheet import contact_sheet
    from attengait.store import open_store
    from attengait.system.files import check_target

    check_target(out, "out")
    opened = open_store(store)
    shown = contact_sheet(opened, out, num_rows=rows, num_frames=columns)
    say(f"{out}: {len(shown)} sequences of {opened.location}")


def _cell(value: object) -> Text:
    if isinstance(value, dict):
        lines = [f"{key}: {_plain(item)}" for key, item in islice(value.items(), _MOST_LINES)]
        others = len(value) - len(lines)  # each of GREW's sequences has a view of its own
        return cell_of_lines([*lines, *([f"and {others:,} others (all with --json)"] if others else [])])
    return cell(_plain(value))


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_plain(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(str(item) for item in value)
    if value is None:
        return "unknown"
    return f"{value:,}" if isinstance(value, int) else str(value)
