"""What is embedded is kept beside the file that is to be written, so that a killed command continues.

The folder `NAME.npz.work` has a lock, the digest of what is being embedded, and parts: `rows` int64 [k] and `features`
float32 [k, parts, D] in an `.npz` file each. It is removed when the whole file is written. A command that is done
within a minute writes no part.
"""

import io
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from attengait.errors import AttenGaitError
from attengait.evaluation.npz import NpzError, read_arrays
from attengait.system.files import lock, remove_leftovers, write_atomically

SAVE_SECONDS = 60
"""At most so much work is lost, and what is under way."""

_PART = re.compile(r"part-\d{6}\.npz")
_DIGEST = "what.sha256"


class KeptParts:
    """Parts of the embeddings that become the file `out`; a context manager.

    `sha256` says what is embedded, by what, and how. AttenGaitError where the folder has parts of something else, where
    another process writes `out`, and where the folder cannot be written.
    """

    def __init__(self, out: Path, sha256: str) -> None:
        self.folder = out.with_name(f"{out.name}.work")
        self._out, self._sha256 = out, sha256
        self._rows: list[NDArray[np.int64]] = []
        self._features: list[NDArray[np.float32]] = []
        self._end = ExitStack()

    def __enter__(self) -> Self:
        try:
            self.folder.mkdir(exist_ok=True)
            file = self._end.enter_context((self.folder / ".lock").open("wb"))
        except OSError as error:
            raise AttenGaitError(f"{self.folder} cannot be written: {error.strerror or error}") from None
        with self._end:
            lock(file, AttenGaitError(f"{self._out} is being written by another process"))
            digest = self.folder / _DIGEST
            remove_leftovers(digest)
            if digest.exists() and digest.read_text(encoding="utf-8", errors="replace") != self._sha256:
                raise AttenGaitError(
                    f"{self.folder} has embeddings of another model, store or setting: give the command with which it "
                    "was begun, or remove the folder"
                )
            write_atomically(digest, self._sha256.encode())
            self._saved_seconds = time.monotonic()
            self._end = self._end.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        """A folder without parts does not stay."""
        if self.folder.exists() and not self._parts():
            self.remove()
        self._end.close()

    def load(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Rows and features of each part. Raises AttenGaitError for a damaged one."""
        for path in self._parts():
            try:
                arrays = read_arrays(path, ("rows", "features"))
                yield arrays["rows"], arrays["features"]
            except (OSError, NpzError, KeyError) as error:
                raise AttenGaitError(
                    f"{path} is damaged: remove it, and what it held is computed anew ({error})"
                ) from None

    def add(self, rows: NDArray[np.int64], features: NDArray[np.float32]) -> None:
        """Keep what is done: with the next part, which is written after some time."""
        self._rows.append(rows)
        self._features.append(features)
        if time.monotonic() - self._saved_seconds < SAVE_SECONDS:
            return
        content = io.BytesIO()
        np.savez(content, rows=np.concatenate(self._rows), features=np.concatenate(self._features))
        write_atomically(self.folder / f"part-{self._next:06d}.npz", content.getvalue())
        self._rows, self._features, self._saved_seconds = [], [], time.monotonic()

    def remove(self) -> None:
        """The whole file is written."""
        shutil.rmtree(self.folder)

    @property
    def _next(self) -> int:
        return 1 + max((int(path.stem.removeprefix("part-")) for path in self._parts()), default=0)

    def _parts(self) -> list[Path]:
        return sorted(path for path in self.folder.iterdir() if _PART.fullmatch(path.name))
