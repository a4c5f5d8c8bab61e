"""One grammar of errors: what a user reads of a parameter is `NAME is VALUE, but must be WHAT`."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from attengait.errors import ParameterError, require

ROOT = Path(__file__).parents[1]
ROOMS_OF_THE_LIBRARY = (
    "datasets",
    "evaluation",
    "export",
    "model",
    "preprocessing",
    "report",
    "sampling",
    "store",
    "synth",
    "system",
    "training",
)
ROOMS = (
    *(f"attengait/{room}" for room in ROOMS_OF_THE_LIBRARY),
    *("benchmarks", "cli", "kernels", "pipelines"),
)


def sentences(source: str) -> Iterator[tuple[int, str]]:
    """The line and the literal text of each ParameterError that a module makes."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "ParameterError":
            parts = (part.value for part in ast.walk(node) if isinstance(part, ast.Constant))
            yield node.lineno, "".join(part for part in parts if isinstance(part, str))


@pytest.mark.parametrize("room", ROOMS)
def test_errors_of_parameters_say_what_must_be(room: str) -> None:
    paths = sorted((ROOT / room).rglob("*.py"))
    assert paths
    found = [(path.name, *sentence) for path in paths for sentence in sentences(path.read_text(encoding="utf-8"))]
    assert [sentence for sentence in found if ", but must " not in sentence[2]] == []


def test_another_grammar_would_be_seen() -> None:
    (_, text), *_ = sentences('raise ParameterError(f"size must be at least 1, got {size}")')
    assert ", but must " not in text
    (_, text), *_ = sentences('raise ParameterError(f"size is {size}, but must be "\n    "at least 1")')
    assert ", but must " in text


def test_a_requirement_that_is_not_met_names_the_parameter_the_value_and_what_must_be() -> None:
    require(True, "epochs", 1, "at least 1")
    with pytest.raises(ParameterError, match=r"^epochs is '0', but must be at least 1$"):
        require(False, "epochs", "0", "at least 1")
