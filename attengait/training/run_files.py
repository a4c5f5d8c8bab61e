"""What a run writes about itself, for people and programs.

    RUN/metrics.jsonl    one JSON object for each logged step and each validation
    RUN/train.log        the same as lines with a time, the summary, and what the library has to say
    RUN/NAME.png         pictures, such as first_batch.png

`read_metrics` reads the first.
"""

import contextlib
import json
import logging
import math
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import IO, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from attengait.system.files import open_regular, write_atomically
from attengait.system.printable import printable

METRICS_NAME = "metrics.jsonl"
LOG_NAME = "train.log"
_MAX_LINE_BYTES = 1 << 16
_MAX_LINE_LETTERS = 2000


def now() -> str:
    """The time, with its zone, to the second."""
    return datetime.now().astimezone().isoformat(timespec="seconds")


class MetricsFile:
    """Writes RUN/metrics.jsonl, and pictures beside it. A line is on the disk before the next step begins."""

    def start(self, run: Path, about: Mapping[str, Any], first_step: int) -> None:
        """See RunLogger. Lines of steps after `first_step` are removed, and so is half a line at the end."""
        self._run, path = run, run / METRICS_NAME
        if path.exists():
            kept = [line for line, values in _lines(path) if values["step"] <= first_step]
            write_atomically(path, b"".join(kept))
        self._file: IO[str] = path.open("a", encoding="utf-8", buffering=1)

    def scalars(self, step: int, values: Mapping[str, float | None]) -> None:
        """See RunLogger."""
        finite = {name: value if value is not None and math.isfinite(value) else None for name, value in values.items()}
        self._file.write(json.dumps({"step": step, "time": now(), **finite}) + "\n")

    def image(self, name: str, step: int, picture: NDArray[np.uint8]) -> None:
        """See RunLogger."""
        encoded, png = cv2.imencode(".png", np.ascontiguousarray(picture[..., ::-1]))
        assert encoded
        write_atomically(self._run / f"{name.rpartition('/')[2]}.png", png.tobytes())

    def finish(self, ended: str) -> None:
        """See RunLogger."""
        self._file.close()


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """The lines of RUN/metrics.jsonl, in order; none where there is no such file.

    Each has `step` and `time`. Lines that are damaged are left out.
    """
    try:
        return [values for _, values in _lines(run / METRICS_NAME)]
    except OSError:
        return []


def _lines(path: Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Each whole line of a file of metrics, and its values."""
    with open_regular(path) as file:
        while line := file.readline(_MAX_LINE_BYTES):
            try:
                values = json.loads(line) if line.endswith(b"\n") else None
            except (ValueError, RecursionError):
                continue
            if isinstance(values, dict) and type(values.get("step")) is int:
                yield line, values


def _in_words(name: str, value: float | None) -> str:
    """Such as `triplet 0.3412`, `gradient_norm none` or `host_bytes 1.31 GB`."""
    short = name.removeprefix("train/").removeprefix("speed/").removeprefix("memory/")
    if value is None:
        return f"{short} none"
    return f"{short} {value / 1e9:.2f} GB" if short.endswith("_bytes") else f"{short} {value:.4g}"


class TextLog(logging.Handler):
    """Writes RUN/train.log: what the loggers hear, and what the library says meanwhile."""

    def start(self, run: Path, about: Mapping[str, Any], first_step: int) -> None:
        """See RunLogger."""
        from attengait.training.summary import summary_lines

        self._file: IO[str] = (run / LOG_NAME).open("a", encoding="utf-8", buffering=1)
        self._write(f"training begins at step {first_step}")
        for line in summary_lines(about):
            self._write(line)
        logging.getLogger("attengait").addHandler(self)

    def scalars(self, step: int, values: Mapping[str, float | None]) -> None:
        """See RunLogger."""
        self._write(f"step {step}  {'  '.join(_in_words(name, value) for name, value in values.items())}")

    def image(self, name: str, step: int, picture: NDArray[np.uint8]) -> None:
        """See RunLogger. A log has no pictures."""

    def finish(self, ended: str) -> None:
        """See RunLogger."""
        logging.getLogger("attengait").removeHandler(self)
        self._write(ended)
        self._file.close()

    def emit(self, record: logging.LogRecord) -> None:
        """Write what the library says, as far as the level of its logger lets it pass."""
        warning = "warning: " if record.levelno >= logging.WARNING else ""
        with contextlib.suppress(OSError):  # what cannot be written is counted where values are
            self._write(warning + record.getMessage())

    def _write(self, text: str) -> None:
        self._file.write(f"{now()} {printable(text, max_letters=_MAX_LINE_LETTERS)}\n")
