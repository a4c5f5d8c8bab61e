"""Options and arguments that several commands share, and how numbers in them are read."""

from typing import Annotated, Literal

import typer

from attengait.errors import ParameterError

STORE_HELP = "A store made by `attengait preprocess`: a folder, or an s3://, gs:// or http(s):// URL."
StoreArgument = Annotated[str, typer.Argument(metavar="STORE", help=STORE_HELP)]
OutOption = Annotated[
    str,
    typer.Option(
        help="Store to write, for example casia-b.zarr or s3://bucket/casia-b.zarr (also gs://). For a URL, the folder "
        "NAME.zarr.work, with which a killed run continues, is made in the current folder."
    ),
]
WorkersOption = Annotated[int | None, typer.Option(help="Processes; by default one for each usable core.")]
CodecOption = Annotated[Literal["none", "lz4", "zstd"], typer.Option(help="Compression; none is the fastest to read.")]
ChunkOption = Annotated[int, typer.Option(help="Frames of a chunk, the unit of compression.")]
CHUNK_FRAMES = 8
"""The library's default, which a test holds it equal to: reading it from there would load zarr for `--help`."""
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Say what would be done and how large it gets.")]
FeatureOrderOption = Annotated[
    Literal["parts-first", "parts-last"] | None,
    typer.Option(
        help="parts-first (n x parts x D) or parts-last (n x D x parts, as OpenGait has it), for the NPZ files that do "
        "not say it."
    ),
]


def parse_numbers(name: str, text: str) -> tuple[int, ...]:
    """Read whole numbers separated by commas. Raises ParameterError for anything else."""
    try:
        return tuple(int(word) for word in text.split(","))
    except ValueError:
        raise ParameterError(f"{name} is {text!r}, but must be whole numbers with commas, such as 1,2") from None


def parse_gpus(text: str | None) -> tuple[int, ...] | None:
    """The GPUs of `--gpus` N (the first N) or of a list such as 0,2; None where nothing is said."""
    if text is None:
        return None
    numbers = parse_numbers("gpus", text)
    if len(numbers) == 1 and numbers[0] < 1:
        raise ParameterError(f"gpus is {text!r}, but must be how many, from 1 on, or a list such as 0,2")
    return numbers if len(numbers) > 1 else tuple(range(numbers[0]))
