"""Clips of a store whose sequences are checked: when a frame of a sequence is first read, all of the sequence is.

A clip is a part of a sequence, but the checksum is that of the whole. So the first clip of each sequence costs the
reading of the whole sequence, once for each reader; later clips cost nothing. Of a sequence that is requested as a
whole, as for embedding or for a cache, nothing more is read. Long sequences are read for their checksum piece by piece.
"""

import shlex
from collections.abc import Callable

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from attengait.errors import AttenGaitError
from attengait.store.layout import FrameLayout
from attengait.store.location import Location
from attengait.store.readers.base import ClipReader, Frames, Indices, Reader, TakeClips
from attengait.store.sequences import Sequences

PIECE_FRAMES = 256
"""Frames that are read at once for a checksum: they may be unpacked into memory."""


class CheckedReader(Reader):
    """Clips of another reader, which it closes, out of sequences whose CRC-32C is right.

    Raises AttenGaitError where a sequence does not lie within one shard.
    """

    def __init__(self, reader: ClipReader, sequences: Sequences, location: Location, layout: FrameLayout) -> None:
        self._reader, self._location = reader, location
        self.gives_copies = reader.gives_copies
        order = np.argsort(sequences.start, kind="stable")
        self._starts, self._lengths = sequences.start[order], sequences.length[order]
        self._crc32c, self._name = sequences.crc32c[order], _namer(sequences, order)
        self._is_checked = np.zeros(len(order), bool)
        starts, lengths, shard_frames = self._starts, self._lengths, layout.shard_frames
        is_wrong = (starts < 0) | (starts >= layout.num_frames) | (lengths < 1) | (lengths > shard_frames)
        is_wrong |= starts % shard_frames > shard_frames - lengths
        if is_wrong.any():
            raise self._damaged(int(np.argmax(is_wrong)), "does not lie within one shard")
        self._stops = starts + lengths
        self._reach = np.maximum.accumulate(self._stops)  # that of the sequences up to here; they should not overlap

    def read_clips(self, starts: Indices, lengths: Indices) -> list[Frames]:
        """See ClipReader; raises AttenGaitError, naming the sequence, where its frames fail their checksum."""
        self.check_open()
        if self._is_checked.all():
            return self._reader.read_clips(starts, lengths)
        return self.request_clips(starts, lengths)()

    def request_clips(self, starts: Indices, lengths: Indices) -> TakeClips:
        """See ClipReader; the function returned raises AttenGaitError, naming the sequence, where its frames fail
        their checksum."""
        self.check_open()
        if self._is_checked.all():
            return self._reader.request_clips(starts, lengths)
        starts, lengths = np.asarray(starts, np.int64), np.asarray(lengths, np.int64)
        stops = starts + lengths
        firsts = np.searchsorted(self._reach, starts, side="right")
        lasts = np.maximum(firsts, np.searchsorted(self._starts, stops, side="left"))
        touched = [firsts + i for i in range(int((lasts - firsts).max(initial=0)))]
        rows = np.concatenate([row[row < lasts] for row in touched]) if touched else firsts[:0]
        rows = rows[~self._is_checked[rows]]
        if not len(rows):
            return self._reader.request_clips(starts, lengths)
        rows = np.unique(rows)
        # In place of a clip, its sequence is read, and the clip is cut out of it.
        is_short = self._lengths[rows] <= PIECE_FRAMES
        wholes, long = rows[is_short], rows[~is_short].tolist()
        places = dict(zip(wholes.tolist(), range(len(wholes)), strict=True))
        is_within = (
            (lasts - firsts == 1) & (lengths > 0) & (starts >= self._starts[np.minimum(firsts, len(self._starts) - 1)])
        )
        is_within &= stops <= self._stops[np.minimum(firsts, len(self._starts) - 1)]
        homes = [places.get(row) if inside else None for row, inside in zip(firsts.tolist(), is_within, strict=True)]
        others = np.array([i for i, home in enumerate(homes) if home is None], np.int64)
        take = self._reader.request_clips(
            np.concatenate([self._starts[wholes], starts[others]]),
            np.concatenate([self._lengths[wholes], lengths[others]]),
        )

        def take_checked() -> list[Frames]:
            self.check_open()
            taken = take()
            for row, frames in zip(wholes.tolist(), taken, strict=False):
                self._check(row, _extend(0, frames))
            clips = dict(zip(others.tolist(), taken[len(wholes) :], strict=True))
            for row in long:
                whole = [clip for i, clip in clips.items() if (int(starts[i]), int(stops[i])) == self._span(row)]
                self._check(row, _extend(0, whole[0]) if whole else self._crc32c_of(row))
            for i, home in enumerate(homes):
                if home is not None:
                    begin = starts[i] - self._starts[wholes[home]]
                    clips[i] = taken[home][begin : begin + lengths[i]]
            return [clips[i] for i in range(len(starts))]

        return take_checked

    def close(self) -> None:
        """See ClipReader."""
        super().close()
        self._reader.close()

    def _span(self, row: int) -> tuple[int, int]:
        return int(self._starts[row]), int(self._stops[row])

    def _crc32c_of(self, row: int) -> int:
        """Of the frames of a long sequence, read piece by piece."""
        crc32c, (start, stop) = 0, self._span(row)
        for begin in range(start, stop, PIECE_FRAMES):
            (frames,) = self._reader.read_clips([begin], [min(PIECE_FRAMES, stop - begin)])
            crc32c = _extend(crc32c, frames)
        return crc32c

    def _check(self, row: int, crc32c: int) -> None:
        if crc32c != self._crc32c[row]:
            raise self._damaged(row, "fail their checksum", "the frames of ")
        self._is_checked[row] = True

    def _damaged(self, row: int, problem: str, what: str = "") -> AttenGaitError:
        command = f"attengait verify {shlex.quote(str(self._location))}"
        return AttenGaitError(f"{self._location}: {what}{self._name(row)} {problem}: {command} lists all damage")


def _namer(sequences: Sequences, order: NDArray[np.int64]) -> Callable[[int], str]:
    return lambda row: sequences.name(int(order[row]))


def _extend(crc32c: int, frames: Frames) -> int:
    """A CRC-32C with that of more frames."""
    contiguous = np.ascontiguousarray(frames).view()
    contiguous.flags.writeable = False  # which is what a buffer that is not copied must be
    return int(google_crc32c.extend(crc32c, contiguous))
