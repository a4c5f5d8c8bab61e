"""The `train` command."""

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from attengait.cli.progress import ProgressLine

if TYPE_CHECKING:
    from collections.abc import Sequence

    from attengait.training.config import TrainingConfig
    from attengait.training.trainer import TrainingResult


def train(
    stores: Annotated[
        list[str],
        typer.Argument(
            metavar="STORE...",
            help="Stores made by `attengait preprocess`, folders or URLs. Several are trained on together, their "
            "subjects called after the stores: casia-b:001.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the run: settings, checkpoints, weights, TensorBoard scalars.")],
    preset: Annotated[
        str | None, typer.Option(help="Settings to start from: demo, casia-b, grew or oumvlp.", show_default="none")
    ] = None,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one setting; may be repeated.")
    ] = None,
    cache: Annotated[
        Literal["auto", "none", "host", "gpu"] | None,
        typer.Option(
            help="Keep all frames in the memory of the host or the GPU; auto does so with what fits into half of it, "
            "and says what it decided. The same as --set cache=...",
            show_default="auto",
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in OUT from its checkpoint.")] = False,
    show_settings: Annotated[
        bool, typer.Option("--show-settings", help="Print the settings as JSON and stop.")
    ] = False,
) -> None:
    """Train AttenGait on a store, or several.

    Ctrl-C or SIGTERM leaves a checkpoint; the same command with --resume continues with the very same numbers.
    """
    from attengait.training.checkpoint import read_record
    from attengait.training.config import TrainingConfig, load_preset, make_config, parse_assignments, settings_of

    settings = settings_of(TrainingConfig())
    if resume and preset is None:
        # Where the former command was to stop says nothing about this one.
        settings = settings_of(read_record(out).config) | {"stop_after_steps": 0}
    if preset is not None:
        settings |= load_preset(preset)
    settings |= parse_assignments(assignments or []) | ({} if cache is None else {"cache": cache})
    config = make_config(settings)
    if show_settings:
        print(config.to_json())
        return
    result = train_with_line(stores, out, config, resume=resume, how_to_continue="continue with --resume")
    rest = "" if result.steps == result.num_steps else " (as stop_after_steps says; continue with --resume)"
    print(f"{result.steps} of {result.num_steps} steps done{rest}: {out / 'model.safetensors'}")


def train_with_line(
    stores: "Sequence[str | Path]", run: Path, config: "TrainingConfig", *, resume: bool, how_to_continue: str
) -> "TrainingResult":
    """Train with a live line; an interruption is said and ends the command with 128 + the signal's number."""
    from attengait.pipelines.train import train_run

    with ProgressLine() as line:
        result = train_run(stores, run, config, resume=resume, progress=line)
    if result.interrupted_by is not None:
        name = signal.Signals(result.interrupted_by).name
        print(f"{name}: stopped at step {result.steps} of {result.num_steps}; {how_to_continue}", file=sys.stderr)
        raise typer.Exit(128 + result.interrupted_by)
    return result
