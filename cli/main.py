"""The `attengait` command: its subcommands, and what a user sees when something is wrong.

Subcommands import what they use when they run, so that `attengait --help` is quick and loads no torch.
"""

import os
import signal
import sys
from types import FrameType
from typing import Annotated, Any

import typer

from attengait import __version__
from attengait.cli import benchmark, convert, data, demo, doctor, recognise, train
from attengait.cli.last_net import is_traceback_wanted, say_unexpected
from attengait.cli.output import complain, say, shown_usage_errors, write_any_letter
from attengait.cli.progress import show_log
from attengait.errors import AttenGaitError
from attengait.store.location import limit_waiting
from attengait.system.memory import keep_freed_memory


class Terminated(KeyboardInterrupt):
    """SIGTERM: a batch system wants what Ctrl-C wants, and cleaning up after both is the same."""


class _Commands(typer.core.TyperGroup):
    """The subcommands; an interrupted one says what is kept and exits with 128 + the signal's number."""

    def make_context(self, *arguments: Any, **named: Any) -> Any:
        with shown_usage_errors():
            return super().make_context(*arguments, **named)

    def invoke(self, ctx: Any) -> Any:
        try:
            with shown_usage_errors():
                return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            complain(f"attengait: {stop}" if str(stop) else "attengait: stopped")
            number = signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT
            raise typer.Exit(128 + number) from None


app = typer.Typer(
    name="attengait",
    cls=_Commands,
    help="Gait recognition from optical flow: frames to a Zarr store, the store to a model, the model to tables.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command("synth")(data.synth)
app.command("preprocess")(data.preprocess)
app.command("info")(data.info)
app.command("verify")(data.verify)
app.command("show")(data.show)
app.command("train")(train.train)
app.command("evaluate")(recognise.evaluate)
app.command("embed")(recognise.embed)
app.command("demo")(demo.demo)
app.command("doctor")(doctor.doctor)
app.add_typer(convert.import_app, name="import")
app.add_typer(convert.export_app, name="export")
app.add_typer(benchmark.app, name="benchmark")


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False) -> None:
    if version:
        say(f"attengait {__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command line; a user's mistake is one sentence on standard error and exit status 1 or 2."""
    signal.signal(signal.SIGTERM, _terminate)
    # Torch's threads wait for one another by spinning, by default so long that they starve when anything else runs on
    # the same cores. Read when torch is loaded, which is later.
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")
    # Before any library has threads, each of which would keep the heap that it began with.
    keep_freed_memory()
    limit_waiting()
    show_log()
    write_any_letter()
    try:
        app()
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
    except Exception as error:
        if is_traceback_wanted():
            raise
        say_unexpected(error)
        sys.exit(1)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated
