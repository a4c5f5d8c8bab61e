"""The `train` command."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from attengait.cli.launch import launch, one_voice, use_gpus, without_gpus
from attengait.cli.options import parse_gpus
from attengait.cli.output import complain, say, say_json
from attengait.cli.progress import ProgressLine
from attengait.cli.signals import NUMBERS
from attengait.errors import require
from attengait.system.progress import SILENT
from attengait.system.stopping import StopRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from attengait.training.config import TrainingConfig
    from attengait.training.trainer import TrainingResult


def train(
    stores: Annotated[
        list[str],
        typer.Argument(
            metavar="STORE...",
            help="Stores, as folders or URLs. Several stores are trained on together; then a subject's name "
            "begins with its store's: casia-b:001.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the run: settings, checkpoints, weights, logs.")],
    preset: Annotated[
        str | None, typer.Option(help="Settings to start from: demo, casia-b, grew or oumvlp.", show_default="none")
    ] = None,
    config_file: Annotated[
        Path | None,
        typer.Option(
            "--config", help="A TOML file of settings, which go before those of the preset.", show_default="none"
        ),
    ] = None,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one setting; may be repeated.")
    ] = None,
    init: Annotated[
        str | None,
        typer.Option(
            metavar="RUN|WEIGHTS",
            help="Begin with the weights of another run, or of a weights file, instead of new ones. Classifiers of "
            "other people are drawn anew. The same as --set init=...",
            show_default="none",
        ),
    ] = None,
    partition: Annotated[
        Path | None,
        typer.Option(
            help="A JSON file of OpenGait: trains on the subjects of its TRAIN_SET, and leaves out those that are in "
            "neither TRAIN_SET nor TEST_SET.",
            show_default="none",
        ),
    ] = None,
    cache: Annotated[
        Literal["auto", "none", "host", "gpu"] | None,
        typer.Option(
            help="Where all images are kept: host (the machine's memory), gpu, or none. auto decides by what fits "
            "into half of the memory, and prints what it decided. The same as --set cache=...",
            show_default="auto",
        ),
    ] = None,
    profile: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Leave a trace of N steps by torch's profiler in the run's folder, for Perfetto. The same as "
            "--set profile_steps=N",
            show_default="0",
        ),
    ] = None,
    gpus: Annotated[
        str | None,
        typer.Option(
            help="GPUs of this machine to train on together: how many, or a list such as 0,2. Each has a batch and "
            "multiplies the learning rate, as published.",
            show_default="one",
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in OUT from its checkpoint.")] = False,
    show_settings: Annotated[
        bool, typer.Option("--show-settings", help="Print the settings as JSON and stop.")
    ] = False,
) -> None:
    """Train AttenGait on a store, or several.

    Ctrl-C, SIGTERM and SIGHUP stop it with a checkpoint. The same command with --resume then continues as if it
    had never stopped. torchrun -m attengait train ... trains in several processes, also on several machines.
    """
    from attengait.pipelines.train import choose_settings
    from attengait.training.config import parse_assignments

    with one_voice() as ranks:
        settings = parse_assignments(assignments or [])
        own = {"cache": cache, "init": init, "profile_steps": profile}
        own = {key: value for key, value in own.items() if value is not None}
        for key, value in own.items():
            require(key not in settings, key, value, f"left out where --set {key} is there")
        settings |= own
        config = choose_settings(
            out, preset=preset, settings=settings, partition=partition, resume=resume, config_file=config_file
        )
        if show_settings:
            if ranks.is_first:
                say_json(config.to_json())
            return
        if chosen := parse_gpus(gpus):
            use_gpus(chosen, config.run.device)
            raise typer.Exit(launch(without_gpus(sys.argv[1:]), len(chosen)))
        result = train_with_line(
            stores, out, config, partition=partition, resume=resume, how_to_continue="continue with --resume"
        )
        rest = "" if result.steps == result.num_steps else " (stopped by stop_after_steps; continue with --resume)"
        if result.is_stopped_early:
            rest = " (stopped early: validations did not become better; the best weights are in the folder best)"
        if ranks.is_first:
            say(f"{result.steps} of {result.num_steps} steps done{rest}: {out / 'model.safetensors'}")


@contextmanager
def stop_signals() -> Iterator[StopRequest]:
    """Turn SIGINT, SIGTERM and SIGHUP into a request to stop, so that the step ends and a checkpoint is written.

    A second signal acts at once, and so does the first one where training does not listen, as while frames are loaded.
    A signal that is ignored stays ignored, as under nohup.
    """
    stop = StopRequest()
    before: dict[int, Any] = {}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)
        before.clear()

    def remember(number: int, frame: FrameType | None) -> None:
        was_heard, handler = stop.is_heard, before[number]
        restore()
        if was_heard:
            stop.signal = number
        else:  # it may raise later, when an import is done, and one end of the command is enough
            handler(number, frame)

    for number in NUMBERS:
        handler = signal.getsignal(number)
        if callable(handler):
            before[number] = signal.signal(number, remember)
    try:
        yield stop
    finally:
        restore()


def train_with_line(
    stores: "Sequence[str | Path]",
    run: Path,
    config: "TrainingConfig",
    *,
    partition: Path | None = None,
    resume: bool,
    how_to_continue: str,
) -> "TrainingResult":
    """Train with a live line; an interruption is said and ends the command with 128 + the signal's number."""
    from attengait.pipelines.train import train_run
    from attengait.training.ranks import joined_ranks

    with (
        joined_ranks() as ranks,
        ProgressLine() if ranks.is_first else nullcontext(SILENT) as line,
        stop_signals() as stop,
    ):
        result = train_run(stores, run, config, partition=partition, resume=resume, progress=line, stop=stop)
    if result.interrupted_by is not None:
        name = signal.Signals(result.interrupted_by).name
        if ranks.is_first:
            complain(f"{name}: stopped at step {result.steps} of {result.num_steps}; {how_to_continue}")
        raise typer.Exit(128 + result.interrupted_by)
    return result
