"""The set of commands, arguments and options: people's scripts depend on it, so that each change must be meant.

`.venv/bin/python tests/cli/test_options.py` writes the list again.
"""

from collections.abc import Iterator
from difflib import unified_diff
from pathlib import Path
from typing import Any

import typer

from attengait.cli.main import app

LIST = Path(__file__).parents[1] / "data" / "command-line.txt"


def lines(command: Any, path: str) -> Iterator[str]:
    """One line for each argument and option of a command and of those below it."""
    for parameter in command.params:
        names = [*parameter.opts, *parameter.secondary_opts]
        is_argument = parameter.param_type_name == "argument"
        required = " (required)" if parameter.required else ""
        yield f"{path} {parameter.name.upper() if is_argument else ' '.join(names)}{required}"
    for name, below in sorted(getattr(command, "commands", {}).items()):
        yield f"{path} {name}"
        yield from lines(below, f"{path} {name}")


def command_line(application: typer.Typer) -> str:
    return "".join(f"{line}\n" for line in lines(typer.main.get_command(application), "attengait"))


def test_the_command_line_is_the_one_that_is_listed() -> None:
    listed, now = LIST.read_text().splitlines(), command_line(app).splitlines()
    changes = [
        line for line in unified_diff(listed, now, lineterm="", n=0) if not line.startswith(("---", "+++", "@@"))
    ]
    assert not changes, (
        "the command line has changed. If that is meant, note it in CHANGELOG.md and write the list again: "
        ".venv/bin/python tests/cli/test_options.py\n" + "\n".join(changes)
    )


def test_arguments_options_and_commands_below_others_are_seen() -> None:
    application, group = typer.Typer(add_completion=False), typer.Typer()

    @group.command("copy")
    def copy(source: str, fast: bool = False, count: int = typer.Option(..., "--count", "-n")) -> None: ...

    @application.command("info")
    def info() -> None: ...

    application.add_typer(group, name="files")
    assert command_line(application).splitlines() == [
        "attengait files",
        "attengait files copy",
        "attengait files copy SOURCE (required)",
        "attengait files copy --fast --no-fast",
        "attengait files copy --count -n (required)",
        "attengait info",
    ]


def test_no_help_of_an_option_has_square_brackets_which_the_terminal_takes_for_a_style() -> None:
    def helps(command: Any) -> Iterator[str]:
        yield from (parameter.help or "" for parameter in command.params)
        for below in getattr(command, "commands", {}).values():
            yield from helps(below)

    texts = list(helps(typer.main.get_command(app)))
    assert len(texts) > 100
    assert [text for text in texts if "[" in text] == []


if __name__ == "__main__":
    LIST.write_text(command_line(app))
    print(f"{LIST}: written")
