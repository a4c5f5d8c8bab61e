"""What a command computes is not lost with its words: standard output may be full, closed, or without a reader."""

import io
import json
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command import attengait

from attengait.cli import output
from attengait.evaluation import Embeddings, save_embeddings


class Full(io.StringIO):
    """A stream that takes nothing."""

    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")


@pytest.fixture
def embeddings(tmp_path: Path) -> Path:
    walks = np.array(["nm-01", "nm-05", "bg-01", "cl-01"] * 4)
    made = Embeddings(
        features=np.random.default_rng(0).normal(size=(16, 2, 4)).astype(np.float32),
        subjects=np.repeat(["075", "076"], 8),
        views=np.tile(np.repeat(["000", "090"], 4), 2),
        sequences=walks,
    )
    save_embeddings(tmp_path / "e.npz", made)
    return tmp_path / "e.npz"


@pytest.mark.parametrize("end", ["> /dev/full", "| true", "| head -0", ">&-"])
@pytest.mark.parametrize(
    "words", ["evaluate --embeddings e.npz --verification --curves c.png", "compare e.npz e.npz --bootstrap 5"]
)
def test_files_are_written_although_nobody_reads_the_table(embeddings: Path, words: str, end: str) -> None:
    script = f"set -o pipefail; {sys.executable} -m attengait {words} --json j.json {end}"
    done = subprocess.run(["bash", "-c", script], cwd=embeddings.parent, capture_output=True, text=True, check=False)
    assert json.loads((embeddings.parent / "j.json").read_text())
    assert (embeddings.parent / "c.png").exists() == ("--curves" in words)
    # What is closed on purpose takes no words; what fails to take them is said.
    assert done.returncode == (0 if end == ">&-" else 1)
    assert done.stderr == ("attengait: standard output: No space left on device\n" if end == "> /dev/full" else "")


def test_work_goes_on_when_a_note_cannot_be_printed_and_the_command_fails_at_its_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for stream in ("stdout", "stderr"):
        with monkeypatch.context() as patch:
            patch.setattr(sys, stream, Full())
            for say in (output.say, output.say_lines, output.say_json, output.say_table, output.complain):
                say("a")
        with pytest.raises(OSError, match="No space") as caught:
            output.check_all_was_said()
        assert caught.value.filename == ("standard output" if stream == "stdout" else "standard error")
        output.check_all_was_said()
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("a\n" * 4, "a\n")


def test_the_log_of_a_long_command_cannot_end_it(monkeypatch: pytest.MonkeyPatch, embeddings: Path) -> None:
    monkeypatch.setattr(output, "_lost", [])
    assert attengait("info", "nowhere.zarr").returncode == 1  # which shows the log
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", Full())
        logging.getLogger("attengait.test").info("step 1")
    assert len(output._lost) == 1
