"""A store by index: sequences as arrays, inside torch's Dataset and its workers, forked and spawned."""

import pickle
import subprocess
import sys
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from attengait.errors import AttenGaitError, ParameterError
from attengait.store import open_store
from attengait.store.layout import CODECS

held, small_stores = import_module("held"), import_module("small_stores")
make_store, zarr_frames = small_stores.make_store, small_stores.zarr_frames
Server = import_module("servers").Server

LENGTHS = (20, 11, 30, 7)


@pytest.mark.parametrize("codec", CODECS)
def test_a_sequence_is_an_array_of_ones_own(tmp_path: Path, codec: str) -> None:
    store = make_store(tmp_path / "s.zarr", codec, lengths=LENGTHS)
    frames = zarr_frames(store)
    assert len(store) == 4
    for index, (start, length) in enumerate(zip(store.sequences.start, LENGTHS, strict=True)):
        expected = frames[start : start + length]
        assert np.array_equal(store[index], expected)
        assert np.array_equal(store[index - 4], expected)
        assert np.array_equal(store[index, 3:6], expected[3:6])
        assert np.array_equal(store[index, -4:], expected[-4:])
        assert store[index, 6:3].shape == (0, *store.frame_shape)
    store[0][:] = 0
    assert np.array_equal(store[0], frames[:20])


def test_one_image_is_read_by_its_number(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.zarr", lengths=LENGTHS)
    assert np.array_equal(store[1, 3], store[1][3])
    assert np.array_equal(store[np.int64(1), -1], store[1][-1])
    assert store[1, 3].shape == store.frame_shape


def test_a_sequence_is_found_by_its_name(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.zarr", lengths=LENGTHS)
    for index in range(4):
        name = tuple(store.sequences.name(index).split("/"))
        assert store.index(*name) == index
        assert np.array_equal(store[name], store[index])
    subject, walk, _ = store.sequences.name(0).split("/")
    with pytest.raises(ParameterError, match=r"^subject is '099', but must be one of the [0-9]+ that there are: 0"):
        store["099", walk, "090"]
    with pytest.raises(ParameterError, match=f"^walk of {subject} is 'xx-01', but must be one of"):
        store[subject, "xx-01", "090"]
    with pytest.raises(ParameterError, match=f"^view of {subject} {walk} is '999', but must be one of"):
        store[subject, walk, "999"]


def test_a_store_can_be_iterated(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.zarr", lengths=LENGTHS)
    assert tuple(len(images) for images in store) == LENGTHS
    assert repr(store[:1]) == f"Store('{store.location}', 1 sequences, 20 images of 6 x 5 x 3, selected)"


@pytest.mark.parametrize(
    ("key", "rows"),
    [
        (slice(1, 3), [1, 2]),
        (slice(None, None, -1), [3, 2, 1, 0]),
        (slice(0, 0), []),
        ([2, -4], [2, 0]),
        ([], []),
        (np.array([True, False, False, True]), [0, 3]),
        (np.array([3], np.uint8), [3]),
    ],
)
def test_several_sequences_are_a_store(tmp_path: Path, key: object, rows: list[int]) -> None:
    store = make_store(tmp_path / "s.zarr", lengths=LENGTHS)
    some = store[key]  # type: ignore[call-overload]
    assert len(some) == len(rows)
    assert [some.sequences.name(i) for i in range(len(some))] == [store.sequences.name(row) for row in rows]
    for images, row in zip(some, rows, strict=True):
        assert np.array_equal(images, store[row])
    assert some.num_frames == sum(LENGTHS[row] for row in rows)
    assert some.content_sha256 == store.content_sha256
    assert some[:1].content_sha256 == store.content_sha256


def test_sequences_are_selected_as_for_training(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.zarr", lengths=(10,) * 8)
    names = [store.sequences.name(i) for i in range(8)]
    subject = store.sequences.subject[2]
    found = store.select(subjects=str(int(subject)))
    assert [found.sequences.name(i) for i in range(len(found))] == [n for n in names if n.startswith(f"{subject}/")]
    view, walk = str(store.sequences.view[0]), str(store.sequences.walk[0])
    both = store.select(walks=walk.partition("-")[0], views=[view])
    assert [both.sequences.name(i) for i in range(len(both))] == [n for n in names if n.endswith(f"/{view}")]
    assert len(store.select()) == len(store.select(subjects=range(0))) == 8
    assert len(store.select(subjects=int(subject), views=90)) == len(found)
    assert len(store.select(subjects=store.sequences.subject[:3])) == len(store.select(subjects=range(1, 3))) == 4
    for chosen in ({"subjects": "099"}, {"walks": "xx"}, {"views": "999"}):
        (what,) = chosen
        with pytest.raises(ParameterError, match=f"^{what} is '[0-9a-z]+', but must be"):
            store.select(**chosen)


def test_a_selection_shares_what_its_store_has_opened_and_is_closed_with_it(tmp_path: Path) -> None:
    make_store(tmp_path / "s.zarr", lengths=LENGTHS)

    with open_store(tmp_path / "s.zarr") as store:
        some = store[1:3]
        images = [store[0], some[0], some[:1][0]]
        assert held.maps(tmp_path / "s.zarr" / "frames" / "c" / "0") == 1
    with pytest.raises(AttenGaitError, match="was closed: open the store again"):
        some[0]
    assert held.maps(tmp_path / "s.zarr" / "frames" / "c" / "0") == 0
    assert [len(each) for each in images] == [LENGTHS[0], LENGTHS[1], LENGTHS[1]]


def test_a_selection_is_pickled(tmp_path: Path) -> None:
    some = make_store(tmp_path / "s.zarr", lengths=LENGTHS)[1:3]
    again = pickle.loads(pickle.dumps(some))
    assert [len(images) for images in again] == [11, 30]
    assert again.content_sha256 == some.content_sha256


def test_a_table_has_a_row_for_each_sequence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(tmp_path / "s.zarr", lengths=LENGTHS)
    monkeypatch.setitem(sys.modules, "pandas", None)  # as where it is not installed
    table = store.table()
    assert list(table) == ["subject", "walk", "view", "length"]
    assert table["length"].tolist() == list(LENGTHS)
    monkeypatch.setitem(sys.modules, "pandas", SimpleNamespace(DataFrame=lambda columns: ("frame", columns)))
    kind, columns = store.table()
    assert (kind, columns["length"]) == ("frame", list(LENGTHS))
    assert columns["subject"] == store.sequences.subject.tolist()


def test_a_closed_store_is_said_and_its_arrays_stay(tmp_path: Path) -> None:
    with make_store(tmp_path / "s.zarr", lengths=LENGTHS) as store:
        images = store[0]
        part = store[1, 3:5]
    assert len(images) == 20
    assert len(part) == 2
    for read in (lambda: store[0], lambda: store[0, 3:3], lambda: store.frame_numbers(0), store.reader):
        with pytest.raises(AttenGaitError, match=r"s.zarr was closed: open the store again"):
            read()


def test_what_is_open_is_taken_as_it_is(tmp_path: Path) -> None:
    some = make_store(tmp_path / "s.zarr", lengths=LENGTHS)[1:3]
    assert open_store(some) is some
    assert len(open_store(SimpleNamespace(location=some.location))) == 4
    for wrong in (None, 7, ["a.zarr"], SimpleNamespace(location=None)):
        with pytest.raises(ParameterError, match=r"^store is .*, but must be a path, a URL, an open store"):
            open_store(wrong)  # type: ignore[arg-type]


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.zarr", lengths=LENGTHS)
    for index in (4, -5):
        for key in (index, [0, index], (index, 0)):
            with pytest.raises(IndexError, match=f"sequence is {index}, but there are 4"):
                store[key]
    for image in (11, -12):
        with pytest.raises(IndexError, match=f"image of sequence 1 is {image}, but there are 11"):
            store[1, image]
    with pytest.raises(ParameterError, match="the step of the images is 2, but must be 1"):
        store[0, ::2]
    for wrong in ("001", 1.5, (0, 1, 2), (0, "nm"), None, ("001", "nm-01")):
        with pytest.raises(ParameterError, match=r"^index is .* but must be as in store"):
            store[wrong]
    for rows in ([0.5], np.zeros(3, bool), np.zeros((2, 2), int), ["001"]):
        with pytest.raises(ParameterError, match=r"^index is .* but must be bool"):
            store[rows]


# In a process of its own, as forked workers need one whose other threads do nothing.
WORKERS = """
import sys
import numpy as np
from torch.utils.data import DataLoader, Dataset
import attengait

class Walks(Dataset):
    def __init__(self, path):
        self.store = attengait.open_store(path)
    def __len__(self):
        return len(self.store)
    def __getitem__(self, index):
        return self.store[index, :7], index

if __name__ == "__main__":
    path, method = sys.argv[1:]
    walks = Walks(path)
    expected = [walks[i][0] for i in range(len(walks))]
    loader = DataLoader(walks, batch_size=2, num_workers=2, multiprocessing_context=method)
    batches = [(clips.numpy(), indices.tolist()) for clips, indices in loader]
    assert [i for _, indices in batches for i in indices] == [0, 1, 2, 3]
    assert np.array_equal(np.concatenate([clips for clips, _ in batches]), np.stack(expected))
"""


@pytest.mark.parametrize(
    ("codec", "method", "served", "problem"),
    [
        ("none", "fork", False, None),
        ("lz4", "fork", False, None),
        ("zstd", "spawn", False, None),
        ("lz4", "spawn", True, None),
        ("lz4", "fork", True, "start workers by spawning"),
    ],
)
def test_workers_of_a_dataloader_read_the_same(
    tmp_path: Path, codec: str, method: str, served: bool, problem: str | None
) -> None:
    store = make_store(tmp_path / "s.zarr", codec, lengths=LENGTHS)
    script = tmp_path / "script.py"
    script.write_text(WORKERS)
    with Server() if served else nullcontext() as server:
        if server:
            server.serve_folder(store.path, "s.zarr")
        where = f"{server.url}/s.zarr" if server else str(store.path)
        command = [sys.executable, str(script), where, method]
        done = subprocess.run(command, capture_output=True, text=True, timeout=1200)
    if problem is None:
        assert done.returncode == 0, done.stderr
    else:
        assert done.returncode == 1
        assert "AttenGaitError: this process was forked from one" in done.stderr
        assert problem in done.stderr
