"""The `import` and `export` commands: files of other programs to ours, and ours to files of other programs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from attengait.cli.data import make_store
from attengait.cli.options import (
    CHUNK_FRAMES,
    ChunkOption,
    CodecOption,
    DryRunOption,
    OutOption,
    StoreArgument,
    WorkersOption,
)
from attengait.cli.output import say, say_lines
from attengait.cli.progress import ProgressLine
from attengait.errors import ParameterError
from attengait.system.machine import usable_cores

if TYPE_CHECKING:
    from attengait.datasets import Folders
    from attengait.preprocessing.recipe import Recipe

import_app = typer.Typer(
    help="Make a store, or weights, from files of other programs.",
    no_args_is_help=True,
)
export_app = typer.Typer(
    help="Write a store, or a network, as files for other programs.",
    no_args_is_help=True,
)

DatasetOption = Annotated[
    str | None, typer.Option(help="The name of the data set, for the store to record.", show_default="imported")
]
EncodingOption = Annotated[
    str | None, typer.Option(help="How flow is stored: colour, uv or uvm.", show_default="colour")
]
MODALITY_HELP = "What the files show: flow, silhouette, silhouette+flow, rgb or other."
PadOption = Annotated[
    bool,
    typer.Option(
        "--pad/--no-pad",
        help="Add columns of zeros on both sides of images that are narrower than high: 64 x 44 becomes 64 x 64, which "
        "the model takes.",
    ),
]


@import_app.command("pickles")
def import_pickles(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder laid out as OpenGait's: subject/type/view/*.pkl.")
    ],
    out: OutOption,
    file: Annotated[
        str | None,
        typer.Option(
            metavar="PATTERN",
            help="Which file to take if a sequence has several: a name, or a pattern such as '*-rgbs.pkl'.",
        ),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="The name of the data set, for the store to record. With gait3d, ccpg, sustech1k, casia-e, hid or "
            "grew, its names are checked, and the file of its silhouettes is taken.",
            show_default="imported",
        ),
    ] = None,
    modality: Annotated[
        str | None,
        typer.Option(
            help=MODALITY_HELP,
            show_default="silhouette for one channel",
        ),
    ] = None,
    encoding: EncodingOption = None,
    pad: PadOption = True,
    codec: CodecOption = "none",
    chunk_frames: ChunkOption = CHUNK_FRAMES,
    workers: WorkersOption = None,
    dry_run: DryRunOption = False,
) -> None:
    """Make a store from OpenGait's pickles. Nothing in a pickle is executed.

    A pickle holds one array: [T, H, W], [T, C, H, W] or [T, H, W, C]. If the command is stopped, it continues when it
    is started again.
    """
    from attengait.datasets import Folders
    from attengait.datasets.opengait_sets import NAMINGS
    from attengait.preprocessing.arrays import ArrayRecipe

    if dataset not in NAMINGS and (known := (dataset or "").strip().lower()) in NAMINGS:
        raise ParameterError(f"dataset is {dataset!r}, but must be {known!r}, or the name of another data set")
    recipe = ArrayRecipe(dataset=dataset, shows=modality, encoding=encoding, pad=pad)
    _run(
        dataset if dataset in NAMINGS else "pickles",
        Folders(files=folder, pattern=file),
        recipe,
        out,
        codec=codec,
        chunk_frames=chunk_frames,
        workers=workers,
        dry_run=dry_run,
    )


@import_app.command("h5")
def import_h5(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder of the files, such as 001_nm-01_090.h5, or of such folders.")
    ],
    out: OutOption,
    dataset: DatasetOption = None,
    modality: Annotated[
        str | None,
        typer.Option(help=MODALITY_HELP, show_default="flow"),
    ] = None,
    encoding: EncodingOption = None,
    pad: PadOption = True,
    codec: CodecOption = "none",
    chunk_frames: ChunkOption = CHUNK_FRAMES,
    workers: WorkersOption = None,
    dry_run: DryRunOption = False,
) -> None:
    """Make a store from the HDF5 files of the published AttenGait, one for each sequence.

    If the command is stopped, it continues when it is started again.
    """
    from attengait.datasets import Folders
    from attengait.preprocessing.arrays import ArrayRecipe

    recipe = ArrayRecipe(dataset=dataset, shows=modality, encoding=encoding, pad=pad)
    _run(
        "h5",
        Folders(files=folder),
        recipe,
        out,
        codec=codec,
        chunk_frames=chunk_frames,
        workers=workers,
        dry_run=dry_run,
    )


@import_app.command("keras")
def import_keras(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Weights of the published program, .hdf5.")],
    out: Annotated[Path, typer.Option(help="The file to write, .safetensors.")],
) -> None:
    """Turn weights of the published AttenGait into a file of ours."""
    from attengait.export import weights as exporting

    exporting.import_keras(file, out)
    say(f"{out}: the weights of {file}")


@export_app.command("weights")
def export_the_weights(
    model: Annotated[Path, typer.Argument(metavar="RUN", help="A run, or a file of weights.")],
    out: Annotated[Path, typer.Option(help="The file to write.")],
    format: Annotated[
        Literal["safetensors", "onnx", "torch-export"],
        typer.Option(help="safetensors: weights alone. onnx, torch-export: the whole network, without our code."),
    ] = "safetensors",
) -> None:
    """Write a network for other programs.

    ONNX and torch.export: clips uint8 [N, T, 64, 64, C] of at least 16 images to embeddings float32 [N, 62, D].
    """
    from attengait.export.weights import export_weights

    difference = export_weights(model, out, format=format)
    if format == "safetensors":
        say(f"{out}: the weights of {model}")
    elif difference is None:
        say(f"{out}: the network of {model}. It was not compared with torch: onnxruntime is not installed.")
    else:
        say(f"{out}: the network of {model}. Its embeddings differ from torch's by {difference:.1e} at most.")


@export_app.command("pickles")
def export_pickles(
    store: StoreArgument,
    out: Annotated[str, typer.Option(help="Folder to write. It must be empty, or not exist yet.")],
    beside: Annotated[
        str | None,
        typer.Option(
            "--with",
            metavar="STORE",
            help="A second store of the same walks, for multi-modal networks. Each sequence gets two files of equal "
            "length, such as 0_silhouette.pkl and 1_flow.pkl, with the frames that both stores have.",
        ),
    ] = None,
    workers: WorkersOption = None,
    dry_run: DryRunOption = False,
) -> None:
    """Write a store as OpenGait's pickles, OUT/subject/walk/view/view.pkl.

    If the command is stopped, it continues when it is started again.
    An array is uint8: [T, H, W] for one channel, [T, C, H, W] for more.
    """
    from attengait.export import pickles as exporting

    with ProgressLine() as line:
        summary = exporting.export_pickles(
            store,
            out,
            beside=beside,
            workers=workers if workers is not None else usable_cores(),
            dry_run=dry_run,
            progress=line,
        )
    say_lines(summary)


@export_app.command("h5")
def export_h5(
    store: StoreArgument,
    out: Annotated[str, typer.Option(help="Folder to write. It must be empty, or not exist yet.")],
    workers: WorkersOption = None,
    dry_run: DryRunOption = False,
) -> None:
    """Write a store as the HDF5 files of the published AttenGait, with the lists that its trainer reads.

    If the command is stopped, it continues when it is started again.
    """
    from attengait.export import published_h5 as exporting

    with ProgressLine() as line:
        summary = exporting.export_h5(
            store,
            out,
            workers=workers if workers is not None else usable_cores(),
            dry_run=dry_run,
            progress=line,
        )
    say_lines(summary)


def _run(
    source: str,
    folders: "Folders",
    recipe: "Recipe",
    out: str,
    *,
    codec: str,
    chunk_frames: int,
    workers: int | None,
    dry_run: bool,
) -> None:
    from attengait.pipelines.preprocess.run import choose_executor
    from attengait.preprocessing.run import PreprocessConfig

    config = PreprocessConfig(
        dataset=source,
        folders=folders,
        out=out,
        recipe=recipe,
        executor=choose_executor(recipe, workers=workers),
        codec=codec,
        chunk_frames=chunk_frames,
    )
    make_store(config, dry_run=dry_run)
