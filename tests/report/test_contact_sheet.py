"""The contact sheet shows the frames it says, in the right colours."""

from importlib import import_module

import cv2
import numpy as np
import pytest
from small_stores import make_store

from attengait.errors import AttenGaitError, ParameterError
from attengait.kernels.pictures.colour import colour_flow, largest_magnitude
from attengait.report.contact_sheet import contact_sheet
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


def shown(path, tmp_path, num_frames=3):
    """The frames of the first row, RGB, and the row."""
    store = open_store(path)
    row = contact_sheet(store, tmp_path / "sheet.png", num_rows=1, num_frames=num_frames)[0]
    sheet = cv2.cvtColor(cv2.imread(str(tmp_path / "sheet.png")), cv2.COLOR_BGR2RGB)
    height, width, _ = store.frame_shape
    frames = [
        sheet[: 2 * height : 2, x : x + 2 * width : 2] for x in range(0, num_frames * (2 * width + 2), 2 * width + 2)
    ]
    with store.reader() as reader:
        (clip,) = reader.read_clips(store.sequences.start[:1], store.sequences.length[:1])
    return np.stack(frames), clip[row.frames]


@pytest.mark.parametrize(("encoding", "channels"), [("uv", 2), ("uvm", 3)])
def test_flow_is_shown_as_colours_relative_to_the_row_s_largest(tmp_path, encoding, channels):
    attributes = {"encoding": encoding, "encoding_steps_per_px": 8}
    make_store(tmp_path / "s.zarr", frame_shape=(6, 5, channels), attributes=attributes)
    pictures, frames = shown(tmp_path / "s.zarr", tmp_path)
    flow = (frames[..., :2].astype(np.float32) - 128) / 8
    np.testing.assert_array_equal(pictures, colour_flow(flow, largest_magnitude(flow)))
    assert pictures.std() > 10


def test_silhouettes_are_shown_in_gray(tmp_path):
    make_store(tmp_path / "s.zarr", frame_shape=(6, 5, 1), attributes={"encoding": "gray"})
    pictures, frames = shown(tmp_path / "s.zarr", tmp_path)
    np.testing.assert_array_equal(pictures, np.repeat(frames, 3, axis=-1))


def test_a_silhouette_is_shown_above_its_flow_image(tmp_path):
    attributes = {"encoding": "gray+uv", "encoding_steps_per_px": 8, "channels": ["silhouette", "flow-u", "flow-v"]}
    store = make_store(tmp_path / "s.zarr", frame_shape=(6, 5, 3), attributes=attributes)
    contact_sheet(store, tmp_path / "sheet.png", num_rows=1, num_frames=1)
    sheet = cv2.cvtColor(cv2.imread(str(tmp_path / "sheet.png")), cv2.COLOR_BGR2RGB)
    frame = store[0, 0:1]
    np.testing.assert_array_equal(sheet[:12:2, :10:2], np.repeat(frame[0, ..., :1], 3, axis=-1))
    flow = (frame[..., 1:].astype(np.float32) - 128) / 8
    np.testing.assert_array_equal(sheet[12:24:2, :10:2], colour_flow(flow, largest_magnitude(flow))[0])


@pytest.mark.parametrize("attributes", [{"encoding": "depth"}, {"encoding": "depth", "encoding_steps_per_px": 0}, {}])
def test_two_channels_that_are_no_flow_are_refused(tmp_path, attributes):
    store = make_store(tmp_path / "s.zarr", frame_shape=(6, 5, 2), attributes=attributes)
    with pytest.raises(AttenGaitError, match=r"s\.zarr has frames of 2 channels, encoding .*cannot be shown"):
        contact_sheet(store, tmp_path / "sheet.png")
    assert not (tmp_path / "sheet.png").exists()


def test_too_few_rows_or_frames_are_refused_by_name(store, tmp_path):
    with pytest.raises(ParameterError, match="rows is 0"):
        contact_sheet(store, tmp_path / "sheet.png", num_rows=0)
    with pytest.raises(ParameterError, match="frames is -1"):
        contact_sheet(store, tmp_path / "sheet.png", num_frames=-1)


def test_a_picture_that_cannot_be_written_is_said(store, tmp_path):
    with pytest.raises(AttenGaitError, match=r"missing/sheet\.png cannot be written"):
        contact_sheet(store, tmp_path / "missing" / "sheet.png")
