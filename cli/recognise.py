"""The `evaluate` and `embed` commands."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from attengait.cli.options import StoreArgument
from attengait.cli.output import say
from attengait.cli.progress import ProgressLine
from attengait.cli.tables import evaluation_table
from attengait.errors import ParameterError

ModelArgument = Annotated[
    Path, typer.Argument(metavar="RUN", help="A run's folder, a .safetensors or a Keras .hdf5 file of weights.")
]
SubjectsOption = Annotated[
    str | None, typer.Option(help="Subjects, such as 075-124; by default those that the run did not train on.")
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Precision = Literal["auto", "fp32", "tf32", "bf16", "fp16"]
PRECISION_HELP = (
    "What the network computes in. tf32 needs an NVIDIA GPU. auto is bf16 where the device has it, else fp32."
)


def embed(
    run: ModelArgument,
    store: StoreArgument,
    out: Annotated[Path, typer.Option(help="NPZ file to write: features (n x parts x D), subjects, views, sequences.")],
    subjects: SubjectsOption = None,
    device: DeviceOption = "auto",
    precision: Annotated[Precision, typer.Option(help=PRECISION_HELP)] = "fp32",
) -> None:
    """Compute the embeddings of whole sequences of a store, and write them to a file."""
    from attengait.evaluation.embeddings import save_embeddings
    from attengait.pipelines.embed import embed as embed_store
    from attengait.system.files import check_target

    check_target(out)
    with ProgressLine() as line:
        embeddings = embed_store(run, store, subjects=subjects, device=device, precision=precision, progress=line)
    save_embeddings(out, embeddings)
    say(f"{out}: features {list(embeddings.features.shape)}")


def evaluate(
    run: Annotated[Path | None, typer.Argument(metavar="[RUN]", help="A run's folder or a file of weights.")] = None,
    store: Annotated[
        str | None, typer.Argument(metavar="[STORE]", help="The store with the people to recognise: a folder or a URL.")
    ] = None,
    embeddings: Annotated[
        Path | None, typer.Option(help="Evaluate this NPZ file (from `attengait embed`) instead of RUN and STORE.")
    ] = None,
    feature_order: Annotated[
        Literal["parts-first", "parts-last"] | None,
        typer.Option(
            help="parts-first (n x parts x D) or parts-last (n x D x parts, as OpenGait has it), for an NPZ file that "
            "does not say it."
        ),
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
    precision: Annotated[Precision | None, typer.Option(help=PRECISION_HELP, show_default="fp32")] = None,
) -> None:
    """Recognise people, and print the table of rank-1 by view and condition."""
    from attengait.evaluation import check_fit, check_names, load_embeddings
    from attengait.pipelines.evaluate import evaluate as evaluate_found
    from attengait.system.files import check_target, write_atomically

    check_names(protocol, distance)
    if json_file is not None:
        check_target(json_file)
    if embeddings is not None:
        if run is not None or device is not None or precision is not None:
            raise ParameterError(
                f"--embeddings is {embeddings}, but must be given without RUN, STORE, --device and --precision"
            )
        found = load_embeddings(embeddings, feature_order=feature_order)
        check_fit(protocol, found.sequences, found.views, where=str(embeddings))
        result = evaluate_found(found, protocol=protocol, distance=distance, subjects=subjects)
    elif run is None or store is None:
        raise ParameterError("RUN or STORE is missing, but must be given unless there is --embeddings FILE.npz")
    elif feature_order is not None:
        raise ParameterError(f"--feature-order is {feature_order}, but must be given with --embeddings only")
    else:
        with ProgressLine() as line:
            result = evaluate_found(
                run,
                store,
                protocol=protocol,
                distance=distance,
                subjects=subjects,
                device=device or "auto",
                precision=precision,
                progress=line,
            )
    Console().print(evaluation_table(result))
    if json_file is not None:
        write_atomically(json_file, (json.dumps(result.to_dict(), indent=2) + "\n").encode())
