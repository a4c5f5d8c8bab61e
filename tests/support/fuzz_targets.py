"""What reads files that a user brings, as functions of one file's bytes, and valid files to begin with.

A target may return what it read, or raise AttenGaitError. Anything else is a fault. What is returned can be compared:
of a format of our own, a damaged file must give the same or be refused.
"""

import atexit
import contextlib
import functools
import io
import json
import pickle
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import h5py
import numpy as np
import torch
from foreign_files import arrays, write_hdf5, write_pickles

from attengait.cli.main import app
from attengait.datasets.pictures import read_colour, read_gray
from attengait.datasets.published_h5 import scan as scan_h5
from attengait.datasets.source import Folders
from attengait.datasets.unpickling import read_array, read_header
from attengait.errors import AttenGaitError
from attengait.evaluation.embeddings import Embeddings, load_embeddings, save_embeddings
from attengait.model.config import ModelConfig
from attengait.model.loading import load_model, save_weights
from attengait.model.net import AttenGait
from attengait.sampling.selection import parse_subjects, parse_views
from attengait.store import open_store
from attengait.store.verify import verify
from attengait.training.checkpoint import RunRecord, load_checkpoint, read_record, save_checkpoint, write_record
from attengait.training.config import make_config, parse_assignments
from attengait.training.partition import read_partition

DATA = Path(__file__).parents[1] / "data"
CODEC = "lz4"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One reader."""

    run: Callable[[Path, bytes], object]
    """Reads the bytes as a file in an empty folder, and returns what it read."""
    seeds: Callable[[Path], list[bytes]]
    """Valid contents; the folder is for making them."""
    has_checksums: bool = False
    """Whether damage must be noticed."""


def _file(name: str, read: Callable[[Path], object]) -> Callable[[Path, bytes], object]:
    def run(folder: Path, content: bytes) -> object:
        path = folder / name
        path.write_bytes(content)
        return read(path)

    return run


def _all_of(path: Path, *reads: Callable[[Path], object]) -> None:
    """Try all, and then raise the first error of this program or for what gave nothing."""
    errors = []
    for read in reads:
        try:
            if read(path) is None:
                errors.append(AttenGaitError(f"{path} gives nothing"))
        except AttenGaitError as error:
            errors.append(error)
    if errors:
        raise errors[0]


def _read_pickle(path: Path) -> None:
    _all_of(path, read_header, read_array)


def _pickles(folder: Path) -> list[bytes]:
    arrays = [np.zeros((3, 4, 4), np.uint8), np.asfortranarray(np.ones((2, 3, 3), np.float32)), np.zeros((2, 2), ">u2")]
    return [pickle.dumps(array, protocol) for array in arrays for protocol in (2, 3, 4, 5)]


def _read_hdf5(path: Path) -> None:
    found = scan_h5(Folders(files=path.parent))
    if not found.sequences:
        raise AttenGaitError(f"{path} gives nothing: {found.skipped}")
    for sequence in found.sequences:
        for part in sequence.parts.values():
            part.read()  # type: ignore[attr-defined]


def _hdf5(folder: Path) -> list[bytes]:
    path = write_hdf5(folder / "001_nm-01_090.h5", np.zeros((2, 64, 64, 3), np.uint8))
    with h5py.File(folder / "c.h5", "w") as file:
        file.create_dataset("data", data=np.ones((2, 64, 64, 3), np.uint8), chunks=(1, 64, 64, 3), compression="gzip")
    return [Path(path or folder / "001_nm-01_090.h5").read_bytes(), (folder / "c.h5").read_bytes()]


def _small_model() -> AttenGait:
    return AttenGait(ModelConfig.of_size("tiny", channels=1, num_classes=2, blocks_per_stage=1))


def _state(model: AttenGait) -> object:
    return model.config, {name: tensor.numpy().tobytes() for name, tensor in model.state_dict().items()}


def _weights(folder: Path) -> list[bytes]:
    save_weights(_small_model(), folder / "w.safetensors")
    return [(folder / "w.safetensors").read_bytes()]


def _read_weights(path: Path) -> object:
    return _state(load_model(path))


def _checkpoint_parts(model: AttenGait) -> tuple[torch.optim.Optimizer, torch.amp.GradScaler]:
    return torch.optim.Adam(model.parameters()), torch.amp.GradScaler("cpu", enabled=False)


def _checkpoints(folder: Path) -> list[bytes]:
    model = _small_model()
    optimiser, scaler = _checkpoint_parts(model)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimiser.step()
    save_checkpoint(folder, step=3, model=model, optimiser=optimiser, scaler=scaler)
    return [(folder / "checkpoint.pt").read_bytes()]


def _read_checkpoint(path: Path) -> object:
    model = _small_model()
    optimiser, scaler = _checkpoint_parts(model)
    step = load_checkpoint(path.parent, model=model, optimiser=optimiser, scaler=scaler)
    moments = optimiser.state_dict()
    numbers = [value.numpy().tobytes() for each in moments["state"].values() for value in each.values()]
    return step, _state(model), moments["param_groups"], numbers


def _records(folder: Path) -> list[bytes]:
    store = {"sequences": 4, "frames": 80, "sha256": "ab" * 32}
    write_record(folder, RunRecord(config=make_config({"seed": 3}), subjects=["001", "002"], store=store))
    return [(folder / "config.json").read_bytes()]


def _read_embeddings(path: Path) -> object:
    found = load_embeddings(path)
    return found.features.tolist(), found.subjects.tolist(), found.views.tolist(), found.sequences.tolist()


def _embeddings(folder: Path) -> list[bytes]:
    names = np.array(["075", "076"])
    features = np.zeros((2, 3, 4), np.float32)
    save_embeddings(folder / "e.npz", Embeddings(features=features, subjects=names, views=names, sequences=names))
    content = io.BytesIO()
    np.savez_compressed(content, features=features, subjects=[75, 76], views=[0, 90], sequences=names)
    return [(folder / "e.npz").read_bytes(), content.getvalue()]


@functools.cache
def _store() -> Path:
    """A small finished store, made once."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-store-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    made = arrays(64, 64)
    write_pickles(folder / "pickles", {name: array[:3] for name, array in made.items()})
    words = ["import", "pickles", str(folder / "pickles"), "--out", str(folder / "s.zarr"), "--codec", CODEC]
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
        app([*words, "--workers", "1", "--modality", "other"], standalone_mode=False)
    return folder / "s.zarr"


SHARD = "frames/c/0/0/0/0"


@functools.cache
def _metadata() -> list[str]:
    paths = (path.relative_to(_store()).as_posix() for path in _store().rglob("*") if path.is_file())
    return sorted(path for path in paths if path != SHARD)


def _read_store_with(folder: Path, name: str, content: bytes) -> object:
    """Read all of a copy of the store in which one file has other content."""
    copy = folder / "s.zarr"
    shutil.copytree(_store(), copy)
    (copy / name).write_bytes(content)
    if findings := verify(copy):
        raise AttenGaitError(str(findings[0]))
    with open_store(copy) as store:
        columns = {key: column.tolist() for key, column in store.sequences.columns.items()}
        return store.attributes, columns, [store[row].tobytes() for row in range(len(store))]


def _read_store(folder: Path, content: bytes) -> object:
    """The first byte says which file of the metadata has the other bytes."""
    return _read_store_with(folder, _metadata()[(content or b"\0")[0] % len(_metadata())], content[1:])


def _store_files(folder: Path) -> list[bytes]:
    return [bytes([i]) + (_store() / name).read_bytes() for i, name in enumerate(_metadata())]


def _read_picture(path: Path) -> None:
    _all_of(path, lambda path: read_gray(str(path)), lambda path: read_colour(str(path)))


def _pictures(folder: Path) -> list[bytes]:
    picture = np.random.default_rng(0).integers(0, 256, (24, 20, 3), np.uint8)
    made = [
        cv2.imencode(suffix, image)[1].tobytes() for suffix in (".png", ".jpg") for image in (picture, picture[..., 0])
    ]
    return [*made, cv2.imencode(".bmp", picture)[1].tobytes()]


def _read_names(folder: Path, content: bytes) -> None:
    text = content.decode("utf-8", "replace")
    available = ["001", "002", "010", "casia-b:001", "own:003", "a-b", "5-1", "*x", "１"]
    for parse in (parse_subjects, parse_views):
        with contextlib.suppress(AttenGaitError):
            parse(text, available)
    with contextlib.suppress(AttenGaitError):
        parse_assignments([text])


TARGETS = {
    "checkpoint": Target(run=_file("checkpoint.pt", _read_checkpoint), seeds=_checkpoints, has_checksums=True),
    "embeddings": Target(run=_file("e.npz", _read_embeddings), seeds=_embeddings, has_checksums=True),
    "hdf5": Target(run=_file("001_nm-01_090.h5", _read_hdf5), seeds=_hdf5),
    "keras": Target(
        run=_file("w.hdf5", _read_weights), seeds=lambda folder: [(DATA / "tiny_weights.hdf5").read_bytes()]
    ),
    "names": Target(
        run=_read_names, seeds=lambda folder: [b"001-003/2,5", b"casia-b:1", b"seed=3", b"train_views=0,90", b"*"]
    ),
    "partition": Target(
        run=_file("p.json", read_partition),
        seeds=lambda folder: [json.dumps({"TRAIN_SET": ["1"], "TEST_SET": ["2"], "PROBE_SET": ["2-x"]}).encode()],
    ),
    "pickle": Target(run=_file("a.pkl", _read_pickle), seeds=_pickles),
    "picture": Target(run=_file("p.png", _read_picture), seeds=_pictures),
    "run": Target(run=_file("config.json", lambda path: read_record(path.parent)), seeds=_records, has_checksums=True),
    "shard": Target(
        run=lambda folder, content: _read_store_with(folder, SHARD, content),
        seeds=lambda folder: [(_store() / SHARD).read_bytes()],
        has_checksums=True,
    ),
    "store": Target(run=_read_store, seeds=_store_files, has_checksums=True),
    "weights": Target(run=_file("w.safetensors", _read_weights), seeds=_weights, has_checksums=True),
}
