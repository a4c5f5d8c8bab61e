"""Figures in Markdown files, filled in from the JSON that the benchmarks printed.

A file has markers, and what stands between two of them is written by this program:

    The stream gives <!-- figures: stream-rate -->28,050<!-- end figures --> clips/s.

    <!-- figures: loader -->
    | a table | ...
    <!-- end figures -->

`python -m attengait.benchmarks.figures FILE...` writes them again, `--check` only says where they differ. The names are
those of `attengait.benchmarks.figure_texts.FIGURES`. Everything else in a file stays as it is.
"""

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from attengait.benchmarks.figure_texts import FIGURES
from attengait.errors import AttenGaitError
from attengait.system.files import write_atomically
from attengait.system.lookup import look_up

RESULTS = Path(__file__).parent / "results" / "amd-epyc-2-cores"
"""The folder of the reports whose figures the documentation shows."""

_MARKED = re.compile(
    r"(?P<begin><!-- figures: (?P<name>[a-z0-9-]+) -->)(?P<text>.*?)(?P<end><!-- end figures -->)", re.DOTALL
)
_ANY_MARKER = re.compile(r"<!-- *(end )?figures?\b")


def read_reports(folder: Path) -> dict[str, Any]:
    """The JSON files of a folder by their names without .json; raises AttenGaitError for a damaged one or for none."""
    reports = {}
    for path in sorted(folder.glob("*.json")):
        try:
            reports[path.stem] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise AttenGaitError(f"{path} cannot be read: {error}") from None
    if not reports:
        raise AttenGaitError(f"the folder {folder} holds no reports (files that end in .json)")
    return reports


def fill(text: str, reports: Mapping[str, Any]) -> str:
    """The text of a Markdown file with its figures as the reports have them.

    Raises ParameterError for an unknown name, AttenGaitError for a marker without its other half and for a report that
    lacks what is asked for.
    """
    rest = _MARKED.sub("", text)
    if stray := _ANY_MARKER.search(rest):
        line = rest[stray.start() :].splitlines()[0]
        raise AttenGaitError(
            f"the marker {line!r} stands alone: figures are between <!-- figures: NAME --> and <!-- end figures -->"
        )

    def filled(match: re.Match[str]) -> str:
        name = match["name"]
        try:
            figures = look_up(FIGURES, name, "figures")(reports)
        except (KeyError, IndexError, StopIteration, TypeError) as error:
            raise AttenGaitError(f"figures {name!r}: the reports lack {error}") from error
        if "\n" in figures:
            figures = f"\n{figures}\n"
        return match["begin"] + figures + match["end"]

    return _MARKED.sub(filled, text)


def first_difference(text: str, filled: str) -> str:
    """Where `text` differs from `filled`, as a sentence."""
    lines = zip_longest(text.splitlines(), filled.splitlines(), fillvalue="")
    return next(
        f"line {i} is {old!r}, but the reports give {new!r}" for i, (old, new) in enumerate(lines, 1) if old != new
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m attengait.benchmarks.figures",
        description="Write the figures of Markdown files from the reports of the benchmarks.",
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="A Markdown file.")
    parser.add_argument("--check", action="store_true", help="Write nothing; exit status 1 where a figure differs.")
    parser.add_argument("--results", type=Path, default=RESULTS, help="The folder of the reports.")
    options = parser.parse_args(arguments)
    try:
        reports = read_reports(options.results)
        stale = [sentence for path in options.files if (sentence := _update(path, reports, check=options.check))]
    except (AttenGaitError, OSError) as error:
        stale = [str(error)]
    for sentence in stale:
        print(sentence, file=sys.stderr)
    return 1 if stale else 0


def _update(path: Path, reports: Mapping[str, Any], *, check: bool) -> str | None:
    """Write a file again where a figure differs; with `check`, return where as a sentence instead."""
    text = path.read_text(encoding="utf-8")
    try:
        filled = fill(text, reports)
    except AttenGaitError as error:
        raise AttenGaitError(f"{path}: {error}") from error
    if filled == text:
        return None
    if check:
        return f"{path}: {first_difference(text, filled)}; `make docs-figures` writes it again"
    write_atomically(path, filled.encode())
    print(f"{path}: written")
    return None


if __name__ == "__main__":
    sys.exit(main())
