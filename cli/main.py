"""The `attengait` command: its subcommands, and what a user sees when something is wrong.

Subcommands import what they use when they run, so that `attengait --help` is quick and loads no torch.
"""

import os
import sys
import threading
from typing import Annotated, Any

import typer

from attengait import __version__
from attengait.cli import benchmark, convert, data, demo, doctor, recognise, runs, train
from attengait.cli.last_net import explain, explain_in_thread
from attengait.cli.launch import refuse_several
from attengait.cli.output import check_all_was_said, complain, open_streams, printable_usage_errors, say
from attengait.cli.progress import show_log
from attengait.cli.signals import Signals, number_of
from attengait.errors import AttenGaitError
from attengait.store.location import limit_waiting
from attengait.system.memory import keep_freed_memory

_signals = Signals()
_SHARED = ("train", "embed", "evaluate")
"""The commands whose work several processes share."""


class _Commands(typer.core.TyperGroup):
    """The subcommands; an interrupted one says what is kept and exits with 128 + the signal's number."""

    def make_context(self, *arguments: Any, **named: Any) -> Any:
        with printable_usage_errors():
            return super().make_context(*arguments, **named)

    def invoke(self, ctx: Any) -> Any:
        try:
            with printable_usage_errors():
                return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            _signals.say(str(stop))
            raise typer.Exit(128 + number_of(stop)) from None
        except Exception:
            # No import is interrupted, so a command may fail between a signal and its exception.
            if _signals.stopped_by is None:
                raise
            _signals.say()
            raise typer.Exit(128 + _signals.stopped_by) from None


app = typer.Typer(
    name="attengait",
    cls=_Commands,
    help="Gait recognition from optical flow: frames to a Zarr store, the store to a model, the model to tables.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command("synth")(data.synth)
app.command("datasets")(data.datasets)
app.command("preprocess")(data.preprocess)
app.command("info")(data.info)
app.command("verify")(data.verify)
app.command("show")(data.show)
app.command("train")(train.train)
app.command("runs")(runs.runs)
app.command("attention")(runs.attention)
app.command("evaluate")(recognise.evaluate)
app.command("compare")(recognise.compare)
app.command("embed")(recognise.embed)
app.command("map")(runs.embedding_map)
app.command("demo")(demo.demo)
app.command("doctor")(doctor.doctor)
app.add_typer(convert.import_app, name="import")
app.add_typer(convert.export_app, name="export")
app.add_typer(benchmark.app, name="benchmark")


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    if version:
        say(f"attengait {__version__}")
        raise typer.Exit
    if context.invoked_subcommand not in _SHARED:
        refuse_several(f"attengait {context.invoked_subcommand}")


def main() -> None:
    """Run the command line; whatever is wrong is one sentence on standard error, with exit status 1 or 2."""
    run(Signals())


def run(signals: Signals) -> None:
    """As `main`, for a process that hears these signals."""
    global _signals
    _signals = signals
    signals.interrupt()
    try:
        _run()
    except BaseException:
        if signals.stopped_by is None:
            raise
        # Whatever became of the interruption on its way here.
        signals.say()
        sys.exit(128 + signals.stopped_by)
    finally:
        if signals.stopped_by is None:
            signals.end_at_once()


def _run() -> None:
    open_streams()
    threading.excepthook = explain_in_thread
    # Torch's threads wait for one another by spinning, by default so long that they starve when anything else runs on
    # the same cores. Read when torch is loaded, which is later. It would overrule a user's OMP_WAIT_POLICY.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "3000")
    # Torch's profiler would say on the screen that it starts and stops.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    # Before any library has threads, each of which would keep the heap that it began with.
    keep_freed_memory()
    limit_waiting()
    show_log()
    try:
        _run_command()
    except AttenGaitError as error:
        complain(f"attengait: {error}")
        sys.exit(error.exit_status)
    except BrokenPipeError:
        # The reader of our output is gone (`attengait info STORE | head`): nothing is left to say.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        where = f"{error.filename}: " if error.filename is not None else ""
        complain(f"attengait: {where}{error.strerror or error}")
        sys.exit(1)
    except Exception as error:  # whatever nobody foresaw: a user sees no traceback
        explain(error)
        sys.exit(1)


def _run_command() -> None:
    try:
        app()
    except SystemExit as end:
        if not end.code:
            check_all_was_said()
        raise
