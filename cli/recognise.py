"""The `evaluate` and `embed` commands."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from attengait.cli.options import StoreArgument
from attengait.cli.progress import ProgressLine
from attengait.cli.tables import evaluation_table
from attengait.errors import ParameterError

if TYPE_CHECKING:
    from attengait.evaluation.embeddings import Embeddings

ModelArgument = Annotated[
    Path, typer.Argument(metavar="RUN", help="A run's folder, a .safetensors or a Keras .hdf5 file of weights.")
]
SubjectsOption = Annotated[
    str | None, typer.Option(help="Subjects, such as 075-124; by default those that the run did not train on.")
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]


def embed(
    run: ModelArgument,
    store: StoreArgument,
    out: Annotated[Path, typer.Option(help="NPZ file to write: features [n, parts, D], subjects, views, sequences.")],
    subjects: SubjectsOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Embed whole sequences of a store."""
    from attengait.evaluation.embeddings import save_embeddings
    from attengait.system.files import check_target

    check_target(out)
    embeddings = embed_with_progress(run, store, subjects, device)
    save_embeddings(out, embeddings)
    print(f"{out}: features {list(embeddings.features.shape)}")


def evaluate(
    run: Annotated[Path | None, typer.Argument(metavar="[RUN]", help="A run's folder or a file of weights.")] = None,
    store: Annotated[
        str | None, typer.Argument(metavar="[STORE]", help="The store to recognise people in: a folder or a URL.")
    ] = None,
    embeddings: Annotated[
        Path | None, typer.Option(help="Evaluate this NPZ file (from `attengait embed`) instead of RUN and STORE.")
    ] = None,
    protocol: Annotated[
        str, typer.Option(help="casia-b, or casia-b-cross-view (one gallery of all views).")
    ] = "casia-b",
    distance: Annotated[
        str, typer.Option(help="l2 (the paper's), l1 (what the published program computes), part-l2 or part-cosine.")
    ] = "l2",
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the table to this JSON file.")] = None,
    subjects: SubjectsOption = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.", show_default="auto")] = None,
) -> None:
    """Print the rank-1 table of views and conditions, identical views excluded."""
    import numpy as np

    from attengait.evaluation import check_names, evaluate_embeddings
    from attengait.evaluation.embeddings import load_embeddings
    from attengait.sampling.selection import parse_subjects
    from attengait.system.files import check_target, write_atomically

    check_names(protocol, distance)
    if json_file is not None:
        check_target(json_file)
    if embeddings is not None:
        if run is not None or device is not None:
            raise ParameterError(f"--embeddings is {embeddings}, but must be given without RUN, STORE and --device")
        found = load_embeddings(embeddings)
        if subjects is not None:
            names = parse_subjects([subjects], sorted(set(found.subjects.tolist())))
            found = found.select(np.isin(found.subjects, names))
    elif run is None or store is None:
        raise ParameterError("RUN or STORE is missing, but must be given unless there is --embeddings FILE.npz")
    else:
        found = embed_with_progress(run, store, subjects, device or "auto")
    result = evaluate_embeddings(found, protocol=protocol, distance=distance)
    Console().print(evaluation_table(result))
    if json_file is not None:
        write_atomically(json_file, (json.dumps(result.to_dict(), indent=2) + "\n").encode())


def embed_with_progress(run: Path, store: str, subjects: str | None, device: str) -> "Embeddings":
    """Embed a store's sequences, with a live line."""
    from attengait.pipelines.embed import embed_run

    with ProgressLine() as line:
        specs = subjects.split(",") if subjects is not None else None
        return embed_run(run, store, subjects=specs, device=device, progress=line)
