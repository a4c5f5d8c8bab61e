"""A store by index: sequences as arrays, inside torch's Dataset and its workers, forked and spawned."""

import subprocess
import sys
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from attengait.errors import ParameterError
from attengait.store.layout import CODECS

small_stores = import_module("small_stores")
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


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.zarr", lengths=LENGTHS)
    for index in (4, -5):
        with pytest.raises(IndexError, match=f"sequence {index} of 4"):
            store[index]
    with pytest.raises(ParameterError, match="the step of the frames is 2, but must be 1"):
        store[0, ::2]


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
        ("none", "spawn", False, None),
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
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if problem is None:
        assert done.returncode == 0, done.stderr
    else:
        assert done.returncode == 1
        assert "AttenGaitError: this process was forked from one" in done.stderr
        assert problem in done.stderr
