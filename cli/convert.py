"""The `import` and `export` commands: other programs' files to a store, and a store to other programs' files."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
from attengait.cli.output import say_lines
from attengait.cli.progress import ProgressLine
from attengait.system.machine import usable_cores

if TYPE_CHECKING:
    from attengait.datasets import Folders
    from attengait.preprocessing.recipe import Recipe

import_app = typer.Typer(
    help="Make a store from files of other programs. If it is stopped, the same command continues.",
    no_args_is_help=True,
)
export_app = typer.Typer(
    help="Write a store as files for other programs. If it is stopped, the same command continues.",
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
    dataset: DatasetOption = None,
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

    A pickle holds one array: [T, H, W], [T, C, H, W] or [T, H, W, C].
    """
    from attengait.datasets import Folders
    from attengait.preprocessing.arrays import ArrayRecipe

    recipe = ArrayRecipe(dataset=dataset, shows=modality, encoding=encoding, pad=pad)
    _run(
        "pickles",
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
    """Make a store from the HDF5 files of the published AttenGait, one for each sequence."""
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


@export_app.command("pickles")
def export_pickles(
    store: StoreArgument,
    out: Annotated[str, typer.Option(help="Folder to write. It must be empty, or not exist yet.")],
    workers: WorkersOption = None,
    dry_run: DryRunOption = False,
) -> None:
    """Write a store as OpenGait's pickles, OUT/subject/walk/view/view.pkl.

    An array is uint8: [T, H, W] for one channel, [T, C, H, W] for more.
    """
    from attengait.export import pickles as exporting

    with ProgressLine() as line:
        summary = exporting.export_pickles(
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
