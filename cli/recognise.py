"""The `evaluate`, `compare` and `embed` commands."""

import json
import signal
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Literal

import typer

from attengait.cli.launch import launch, one_voice, refuse_several, use_gpus, without_gpus
from attengait.cli.options import FeatureOrderOption, StoreArgument, parse_gpus
from attengait.cli.output import complain, say, say_table
from attengait.cli.progress import ProgressLine
from attengait.cli.signals import SENTENCE
from attengait.cli.tables import evaluation_table
from attengait.errors import ParameterError, require
from attengait.system.progress import SILENT

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

GpusOption = Annotated[
    str | None,
    typer.Option(help="GPUs of this machine that embed together: how many, or a list such as 0,2.", show_default="one"),
]
_EMBEDDED_IS_KEPT = "what was embedded before the last minute is kept, and the same command continues"
_NOTHING_IS_KEPT = "nothing is kept; attengait embed keeps what is embedded"


def _on_gpus(gpus: str | None, device: str, kept: str) -> None:
    """Start a process for each of the GPUs, and end with them; nothing where none were named."""
    if chosen := parse_gpus(gpus):
        use_gpus(chosen, device)
        status = launch(without_gpus(sys.argv[1:]), len(chosen), kept=kept)
        if status == 128 + signal.SIGTERM:  # which the processes leave to this one to say
            complain(SENTENCE)
        raise typer.Exit(status)


def embed(
    run: ModelArgument,
    store: StoreArgument,
    out: Annotated[Path, typer.Option(help="NPZ file to write: features (n x parts x D), subjects, views, sequences.")],
    subjects: SubjectsOption = None,
    device: DeviceOption = "auto",
    precision: Annotated[Precision, typer.Option(help=PRECISION_HELP)] = "fp32",
    gpus: GpusOption = None,
) -> None:
    """Compute the embeddings of whole sequences of a store, and write them to a file.

    Stopped or killed at any moment, the same command continues. With --gpus, or by torchrun -m attengait embed ...,
    several processes share the work.
    """
    from attengait.pipelines.embed import embed_to_file
    from attengait.system.files import check_target

    with one_voice(_EMBEDDED_IS_KEPT) as ranks:
        require(out.suffix == ".npz", "out", str(out), "a file that ends in .npz")
        check_target(out, "out", (run,))
        _on_gpus(gpus, device, _EMBEDDED_IS_KEPT)
        with ProgressLine() if ranks.is_first else nullcontext(SILENT) as line:
            embeddings = embed_to_file(
                run, store, out, subjects=subjects, device=device, precision=precision, progress=line, ranks=ranks
            )
        if embeddings is not None:
            say(f"{out}: features {list(embeddings.features.shape)}")


ProtocolOption = Annotated[
    str,
    typer.Option(
        help="casia-b, casia-b-cross-view, casia-e, ccpg, cross-walk, gait3d, grew, hid, oumvlp, oumvlp-cross-view, "
        "retrieval, sustech1k, or custom (with --gallery and --probes)."
    ),
]
DistanceOption = Annotated[
    str, typer.Option(help="l2 (the paper's), l1 (what the published program computes), part-l2 or part-cosine.")
]
PartitionOption = Annotated[
    Path | None,
    typer.Option(help="JSON file of OpenGait: its TEST_SET chooses the subjects, its PROBE_SET the probes of gait3d."),
]
GalleryOption = Annotated[
    list[str] | None,
    typer.Option(
        help="For custom: COLUMN=VALUES or COLUMN!=VALUES, such as walk=nm-01,nm-02 or view!=090. All of them hold."
    ),
]
ProbesOption = Annotated[list[str] | None, typer.Option(help="For custom: as --gallery.")]
LeaveOutOption = Annotated[
    Literal["nothing", "same-view"] | None,
    typer.Option(help="For custom: same-view leaves out items of the probe's subject at the probe's view."),
]
RerankOption = Annotated[
    bool | None, typer.Option("--rerank/--no-rerank", help="k-reciprocal re-ranking; by default only hid does it.")
]
OnlyCommonOption = Annotated[
    bool, typer.Option("--only-common", help="Leave out sequences that one of two sets of embeddings lacks.")
]
SeedOption = Annotated[int, typer.Option(help="Seed of the resamples.")]


def _given_beside(context: typer.Context, *names: str) -> list[str]:
    """The arguments and options on the command line but for these, as a user writes them."""
    return [
        max(parameter.opts, key=len) if parameter.opts[0].startswith("-") else (parameter.name or "").upper()
        for parameter in context.command.params
        if parameter.name not in names
        and (source := context.get_parameter_source(parameter.name or "")) is not None
        and source.name == "COMMANDLINE"
    ]


def evaluate(
    context: typer.Context,
    run: Annotated[Path | None, typer.Argument(metavar="[RUN]", help="A run's folder or a file of weights.")] = None,
    store: Annotated[
        str | None, typer.Argument(metavar="[STORE]", help="The store with the people to recognise: a folder or a URL.")
    ] = None,
    embeddings: Annotated[
        Path | None, typer.Option(help="Evaluate this NPZ file (from `attengait embed`) instead of RUN and STORE.")
    ] = None,
    feature_order: FeatureOrderOption = None,
    protocol: ProtocolOption = "casia-b",
    distance: DistanceOption = "l2",
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the table to this JSON file.")] = None,
    subjects: SubjectsOption = None,
    partition: PartitionOption = None,
    gallery: GalleryOption = None,
    probes: ProbesOption = None,
    leave_out: LeaveOutOption = None,
    rerank: RerankOption = None,
    fuse: Annotated[
        Path | None, typer.Option(help="NPZ file of another model's embeddings, whose distances are added.")
    ] = None,
    fuse_weight: Annotated[
        float | None, typer.Option(help="Weight of the other model's distances, between 0 and 1.", show_default="0.5")
    ] = None,
    only_common: OnlyCommonOption = False,
    bootstrap: Annotated[int, typer.Option(help="Resamples of the subjects for 95 % intervals; 0 is none.")] = 0,
    seed: SeedOption = 0,
    verification: Annotated[
        bool, typer.Option("--verification", help="Also ROC, equal error rate, and TAR at FAR 0.0001, 0.001 and 0.01.")
    ] = False,
    curves: Annotated[
        Path | None, typer.Option(help="With --verification: draw the ROC and the DET curve into this PNG file.")
    ] = None,
    submission: Annotated[
        Path | None,
        typer.Option(help="Write only the file of the challenge (grew, hid) for probes without labels: .csv or .zip."),
    ] = None,
    check_submission: Annotated[
        Path | None, typer.Option(help="Only check the form of such a file, for the challenge of --protocol.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.", show_default="auto")] = None,
    precision: Annotated[Precision | None, typer.Option(help=PRECISION_HELP, show_default="fp32")] = None,
    gpus: GpusOption = None,
) -> None:
    """Recognise people, and print the table of figures by view and condition.

    With --gpus, or by torchrun -m attengait evaluate ..., several processes share the embedding of RUN.
    """
    from attengait.evaluation import EvaluationOptions, check_names, load_embeddings
    from attengait.evaluation.embeddings import feature_orders
    from attengait.evaluation.submission import check_submission as check_form
    from attengait.pipelines.evaluate import evaluate_together, submit
    from attengait.system.files import check_target, write_atomically

    is_shared = run is not None and embeddings is None and check_submission is None
    if not is_shared:
        refuse_several("attengait evaluate without RUN")
    with one_voice(_NOTHING_IS_KEPT) if is_shared else nullcontext() as ranks:
        check_names(protocol, distance)
        needed = (run, embeddings, fuse, partition)
        if json_file is not None:
            check_target(json_file, "json", needed)
        if submission is not None:
            check_target(submission, "submission", needed)
        if check_submission is not None:
            if others := _given_beside(context, "check_submission", "protocol"):
                raise ParameterError(
                    f"--check-submission is {check_submission}, but must be given with --protocol alone, and without "
                    f"{', '.join(others)}"
                )
            rows = check_form(check_submission, protocol)
            say(f"{check_submission}: {rows} rows, in the form that {protocol} takes")
            return
        if embeddings is not None:
            if run is not None or precision is not None or gpus is not None:
                raise ParameterError(
                    f"--embeddings is {embeddings}, but must be given without RUN, STORE, --precision and --gpus"
                )
        elif run is None or store is None:
            raise ParameterError("RUN or STORE is missing, but must be given unless there is --embeddings FILE.npz")
        elif feature_order is not None and fuse is None:
            raise ParameterError(
                f"--feature-order is {feature_order}, but must be given with --embeddings or --fuse only"
            )
        if curves is not None:
            from attengait.report.figure import check_figure

            if not verification:
                raise ParameterError(f"--curves is {curves}, but must be left out without --verification")
            check_figure(curves, "curves", (*needed, json_file))
        if submission is not None and json_file is not None:
            raise ParameterError(f"--json is {json_file}, but must be left out with --submission, which makes no table")
        _on_gpus(gpus, device or "auto", _NOTHING_IS_KEPT)
        orders = feature_orders([path for path in (embeddings, fuse) if path is not None], feature_order)
        options = EvaluationOptions(
            partition=partition,
            gallery=tuple(gallery or ()),
            probes=tuple(probes or ()),
            leave_out=leave_out,
            rerank=rerank,
            fuse=None if fuse is None else load_embeddings(fuse, feature_order=orders[fuse]),
            fuse_weight=fuse_weight,
            only_common=only_common,
            bootstrap=bootstrap,
            seed=seed,
            verification=verification,
        )
        what = run if embeddings is None else load_embeddings(embeddings, feature_order=orders[embeddings])
        assert what is not None
        written = result = None
        with ProgressLine() if ranks is None or ranks.is_first else nullcontext(SILENT) as line:
            if submission is not None:
                written = submit(
                    submission,
                    what,
                    store,
                    protocol=protocol,
                    distance=distance,
                    subjects=subjects,
                    options=options,
                    device=device or "auto",
                    precision=precision,
                    progress=line,
                    ranks=ranks,
                )
            else:
                result = evaluate_together(
                    ranks,
                    what,
                    store,
                    protocol=protocol,
                    distance=distance,
                    subjects=subjects,
                    options=options,
                    device=device or "auto",
                    precision=precision,
                    progress=line,
                )
        if written is not None:
            say(written)
        if result is not None:
            if json_file is not None:
                write_atomically(json_file, (json.dumps(result.to_dict(), indent=2) + "\n").encode())
            say_table(evaluation_table(result))
            if curves is not None:
                from attengait.report.curves import draw_curves

                draw_curves(result, curves)


def compare(
    first: Annotated[str, typer.Argument(metavar="A", help="NPZ file of embeddings, or with --store a run.")],
    second: Annotated[str, typer.Argument(metavar="B", help="The same of the other model.")],
    store: Annotated[str | None, typer.Option(help="The store that runs embed: a folder or a URL.")] = None,
    feature_order: FeatureOrderOption = None,
    protocol: ProtocolOption = "casia-b",
    distance: DistanceOption = "l2",
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the table to this JSON file.")] = None,
    subjects: SubjectsOption = None,
    partition: PartitionOption = None,
    gallery: GalleryOption = None,
    probes: ProbesOption = None,
    leave_out: LeaveOutOption = None,
    rerank: RerankOption = None,
    only_common: OnlyCommonOption = False,
    bootstrap: Annotated[int, typer.Option(help="Resamples of the subjects, and exchanges for the p-value.")] = 2000,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
) -> None:
    """Compare two models on the same sequences: differences, their intervals, and p-values over subjects."""
    from attengait.evaluation import EvaluationOptions
    from attengait.pipelines.evaluate import compare as compare_models
    from attengait.system.files import check_target, write_atomically

    if json_file is not None:
        check_target(json_file, "json", (first, second, partition))
    options = EvaluationOptions(
        partition=partition,
        gallery=tuple(gallery or ()),
        probes=tuple(probes or ()),
        leave_out=leave_out,
        rerank=rerank,
        only_common=only_common,
        bootstrap=bootstrap,
        seed=seed,
    )
    with ProgressLine() as line:
        comparison = compare_models(
            first,
            second,
            store,
            protocol=protocol,
            distance=distance,
            subjects=subjects,
            options=options,
            device=device,
            feature_order=feature_order,
            progress=line,
        )
    if json_file is not None:
        write_atomically(json_file, (json.dumps(comparison.to_dict(), indent=2) + "\n").encode())
    say_table(evaluation_table(comparison))
