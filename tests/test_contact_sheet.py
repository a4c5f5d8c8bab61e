"""The contact sheet shows the frames it says, in the right colours."""

from importlib import import_module

import cv2
import numpy as np
import pytest

from attengait.contact_sheet import contact_sheet
from attengait.errors import AttenGaitError, ParameterError
from attengait.store import open_store
from attengait.store.writer import write_store

fakes = import_module("store_fakes")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("sheet") / "s.zarr"
    write_store(fakes.job_of(path))
    return open_store(path)


@pytest.mark.parametrize(("num_rows", "num_frames"), [(3, 4), (1, 1), (100, 100)])
def test_every_shown_frame_is_that_of_the_store(store, tmp_path, num_rows, num_frames):
    rows = contact_sheet(store, tmp_path / "sheet.png", num_rows=num_rows, num_frames=num_frames)
    sheet = cv2.cvtColor(cv2.imread(str(tmp_path / "sheet.png")), cv2.COLOR_BGR2RGB)
    assert len(rows) == min(num_rows, 9)
    row_height = sheet.shape[0] // len(rows)
    height, width = 2 * fakes.SHAPE[0], 2 * fakes.SHAPE[1]
    with store.reader() as reader:
        for y, row in enumerate(rows):
            start, length = int(store.sequences.start[row.sequence]), int(store.sequences.length[row.sequence])
            (clip,) = reader.read_clips([start], [length])
            assert row.name == store.sequences.name(row.sequence)
            assert len(row.frames) == len(set(row.frames)) == min(num_frames, length)
            for x, frame in enumerate(row.frames):
                shown = sheet[y * row_height : y * row_height + height, x * (width + 2) : x * (width + 2) + width]
                np.testing.assert_array_equal(shown[::2, ::2], clip[frame])
            label = sheet[y * row_height + height + 2 : (y + 1) * row_height]
            assert (label == 255).any(), "no name below the row"
    assert list(tmp_path.iterdir()) == [tmp_path / "sheet.png"]


def test_rows_and_frames_are_spread_evenly(store, tmp_path):
    rows = contact_sheet(store, tmp_path / "sheet.png", num_rows=3, num_frames=3)
    assert [row.sequence for row in rows] == [0, 4, 8]
    assert rows[1].frames == [0, 10, 19]


def test_too_few_rows_or_frames_are_refused_by_name(store, tmp_path):
    with pytest.raises(ParameterError, match="rows is 0"):
        contact_sheet(store, tmp_path / "sheet.png", num_rows=0)
    with pytest.raises(ParameterError, match="frames is -1"):
        contact_sheet(store, tmp_path / "sheet.png", num_frames=-1)


def test_a_picture_that_cannot_be_written_is_said(store, tmp_path):
    with pytest.raises(AttenGaitError, match=r"missing/sheet\.png cannot be written"):
        contact_sheet(store, tmp_path / "missing" / "sheet.png")
