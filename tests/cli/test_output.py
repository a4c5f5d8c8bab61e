"""Names out of stores, folders and files reach the terminal as one short line that it only shows."""

import ast
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import attengait, refused
from foreign_files import write_pickles
from rich.console import Console

from attengait.cli import output
from attengait.cli.progress import ProgressLine

HOSTILE = {
    "title": "\x1b]0;owned\x07",
    "clear": "a\x1b[2J",
    "line": "a\nattengait: all is well",
    "bidi": "a\u202eb",
    "c1": "a\x9b31m",
    "markup": "[bold]a[blink]",
}


def is_shown_only(text: str) -> bool:
    return all(letter == "\n" or letter.isprintable() for letter in text)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store in which every name is hostile, and a report of skipped files with such names."""
    folder = tmp_path_factory.mktemp("hostile")
    pictures = np.random.default_rng(0).integers(0, 256, (12, 64, 64), np.uint8)
    write_pickles(folder / "in", {(name, f"w{name}", f"v{name}"): pictures for name in HOSTILE.values()}, file="a.pkl")
    (folder / "in" / HOSTILE["clear"] / "walk" / "view").mkdir(parents=True)
    (folder / "in" / HOSTILE["clear"] / "walk" / "view" / "a\x1b[2J.pkl").write_bytes(b"cos\x1b[2J\nsystem\n.")
    words = ("--dataset", "[/x]", "--modality", "other", "--workers", 1, "--no-pad")
    done = attengait("import", "pickles", folder / "in", "--out", folder / "[bold]\x1b[2J.zarr", *words)
    assert done.returncode == 0, done.stderr
    assert is_shown_only(done.stdout + done.stderr)
    assert "skipped, refused pickle" in done.stdout
    return folder / "[bold]\x1b[2J.zarr"


@pytest.mark.parametrize(
    "words",
    [
        ("info",),
        ("info", "--json"),
        ("verify",),
        ("show", "--out", "{}/a.png"),
        ("export", "pickles", "--out", "{}/e\x1b[2J", "--dry-run"),
        ("train", "--out", "{}/run\x1b[2J", "--set", "train_subjects=\x1b[2J"),
        ("train", "--out", "{}/run", "--preset", "casia-b"),
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_no_command_sends_a_stores_names_to_the_terminal(store: Path, tmp_path: Path, words: Any) -> None:
    command = [word.format(tmp_path) for word in words]
    at = 2 if words[0] == "export" else 1
    done = attengait(*command[:at], store, *command[at:])
    assert is_shown_only(done.stdout + done.stderr)
    if words[0] != "train":
        assert done.returncode == 0, done.stderr
    if words == ("info",):
        for shown in (
            "[/x]",
            r"w\x1b]0;owned\x07: 1",
            r"wa\x1b[2J: 1",
            r"wa\nattengait: all is well: 1",
            r"wa\u202eb: 1",
        ):
            assert shown in done.stdout
        assert "w[bold]a[blink]: 1" in done.stdout
    if words == ("info", "--json"):
        assert set(json.loads(done.stdout)["walks"]) == {f"w{name}" for name in HOSTILE.values()}


def test_embeddings_of_hostile_names_give_a_table_that_only_shows_them(tmp_path: Path) -> None:
    views = np.array(["000", "[/x]", "\x1b[2J", "a\nb"] * 3)
    names = [(walk, view) for walk in ("nm-01", "nm-05", "bg-01") for view in views[:4]]
    np.savez(
        tmp_path / "e.npz",
        features=np.random.default_rng(0).normal(size=(24, 2, 4)).astype(np.float32),
        subjects=np.repeat(["001", "\x1b[2J"], 12),
        views=np.tile(views, 2),
        sequences=np.array([f"{s}/{walk}/{view}" for s in ("001", "\x1b[2J") for walk, view in names]),
    )
    for protocol in ("casia-b", "casia-b-cross-view"):
        done = attengait("evaluate", "--embeddings", tmp_path / "e.npz", "--protocol", protocol)
        assert is_shown_only(done.stdout + done.stderr)
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", [*HOSTILE.values(), "a" * 5000, "\udcff"], ids=lambda name: ascii(name)[:10])
def test_the_name_of_a_file_that_is_missing_is_shown_only(tmp_path: Path, name: str) -> None:
    for words in (
        ("info", name),
        ("verify", name),
        ("evaluate", "--embeddings", name),
        ("embed", name, "s", "--out", "e.npz"),
    ):
        done = attengait(*words, cwd=tmp_path)
        assert is_shown_only(done.stdout + done.stderr)
        refused(done, 1)
        assert len(done.stderr) < 2500


def test_live_lines_show_names_without_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    line = ProgressLine()
    written = io.StringIO()
    monkeypatch.setattr(written, "isatty", lambda: True)
    line._console = Console(file=written, force_terminal=True, force_interactive=True, width=200)
    with line:
        line.update("Reading [/x]\x1b]0;owned\x07", 1, 2, unit="[/frames]", detail="[/y]\x1b[2J")
    assert r"Reading [/x]\x1b]0;owned\x07" in written.getvalue()
    assert r"[/y]\x1b[2J" in written.getvalue()
    assert "\x1b]0;owned" not in written.getvalue()


def test_long_lines_are_bounded(capsys: pytest.CaptureFixture[str]) -> None:
    output.say("a" * 100_000)
    output.complain("b" * 100_000)
    captured = capsys.readouterr()
    assert len(captured.out) < 2 * output.MAX_LINE_LETTERS
    assert len(captured.err) < 2 * output.MAX_LINE_LETTERS


def test_nothing_else_in_the_command_line_prints() -> None:
    """Tables are made of `cell`s. What is printed elsewhere could end the command where nobody reads it."""
    for path in Path(output.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            call = ast.unparse(node.func)
            words = [ast.unparse(word) for word in node.args]
            if call in ("print", "Console"):
                assert path.name == "output.py" or (call, path.name) == ("Console", "progress.py"), (path, words)
            if call.endswith(("add_row", "add_column")):
                assert all("cell" in word for word in words), (path, words)
            if call in ("Text", "typer.echo", "sys.stdout.write", "sys.stderr.write"):
                assert path.name == "output.py", (path, call)


@pytest.mark.parametrize("name", ["a" * 5000, *HOSTILE.values(), "\udcff"], ids=lambda name: ascii(name)[:10])
def test_json_keeps_names_of_any_length_and_letters(store: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    from attengait.store import summary

    held = {"path": name, "views": {name: 1}}
    monkeypatch.setattr(summary, "summarise", lambda store: held)
    assert json.loads(attengait("info", store, "--json").stdout) == held


@pytest.mark.parametrize("name", ["a" * 5000, *HOSTILE.values(), "\udcff"], ids=lambda name: ascii(name)[:10])
@pytest.mark.parametrize("words", [("{}",), ("--{}",), ("info", "x", "{}"), ("synth", "x", "--frames", "{}")])
def test_messages_about_usage_show_words_only(name: str, words: tuple[str, ...]) -> None:
    done = attengait(*(word.format(name) for word in words))
    assert done.returncode == 2
    assert is_shown_only(done.stdout + done.stderr)
    assert len(done.stderr) < 8000
