"""HDF5 files of strangers: only numbers within the file are read, and not more than it can hold."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import foreign_files
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attengait.datasets.arrays import FileError
from attengait.datasets.published_h5 import Hdf5Array
from attengait.errors import AttenGaitError
from attengait.model.keras import read_keras_weights

h5py = pytest.importorskip("h5py")
SECRET = np.full((4, 8, 8, 3), 115, np.uint8)


def read(path: Path) -> np.ndarray[Any, Any]:
    return Hdf5Array(path=str(path), shape=()).read()


def external_storage(file: Any, secret: Path) -> None:
    raw = secret.with_suffix(".raw")
    raw.write_bytes(SECRET.tobytes())
    file.create_dataset("data", SECRET.shape, "u1", external=[(str(raw), 0, SECRET.size)])


def external_link(file: Any, secret: Path) -> None:
    file["data"] = h5py.ExternalLink(str(secret), "data")


def soft_link(file: Any, secret: Path) -> None:
    file["other"] = h5py.ExternalLink(str(secret), "/")
    file["data"] = h5py.SoftLink("/other/data")


def virtual_dataset(file: Any, secret: Path) -> None:
    layout = h5py.VirtualLayout(SECRET.shape, "u1")
    layout[...] = h5py.VirtualSource(str(secret), "data", SECRET.shape)
    file.create_virtual_dataset("data", layout)


def claimed(file: Any, secret: Path) -> None:
    file.create_dataset("data", (2_000_000, 64, 64, 3), "u1", chunks=(8, 64, 64, 3), compression="gzip")


def claimed_in_part(file: Any, secret: Path) -> None:
    claimed(file, secret)
    file["data"][0] = 1


def claimed_without_chunks(file: Any, secret: Path) -> None:
    file.create_dataset("data", (2_000_000, 64, 64, 3), "u1")


def one_huge_chunk(file: Any, secret: Path) -> None:
    file.create_dataset("data", data=SECRET, chunks=(1_000_000, 8, 8, 3), maxshape=(None, 8, 8, 3), compression="gzip")


def foreign_filter(file: Any, secret: Path) -> None:
    file.create_dataset("data", data=SECRET, chunks=SECRET.shape, scaleoffset=0)


MAKE = {
    external_storage: "takes its values from another file (external storage)",
    external_link: "/data is a link to another place",
    soft_link: "/data is a link to another place",
    virtual_dataset: "takes its values from other arrays (a virtual dataset)",
    claimed: "of shape [2000000, 64, 64, 3] needs 24,576,000,000 bytes",
    claimed_in_part: "of shape [2000000, 64, 64, 3] needs 24,576,000,000 bytes",
    claimed_without_chunks: "of shape [2000000, 64, 64, 3] needs 24,576,000,000 bytes",
    one_huge_chunk: "of 768 bytes has chunks of 192,000,000 bytes",
    foreign_filter: "has the filter 6, not one of gzip, shuffle, fletcher32, lzf",
}


@pytest.mark.parametrize(("make", "part"), MAKE.items(), ids=[make.__name__ for make in MAKE])
def test_values_from_elsewhere_and_from_nowhere_are_refused(
    tmp_path: Path, make: Callable[[Any, Path], None], part: str
) -> None:
    secret = foreign_files.write_hdf5(tmp_path / "secret.h5", SECRET)
    path = tmp_path / "001_nm-01_090.h5"
    with h5py.File(path, "w") as file:
        make(file, secret)
    with pytest.raises(FileError) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path} is refused: ")
    assert part in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"chunks": (2, 8, 8, 3)},
        {"chunks": (3, 5, 8, 3), "compression": "gzip", "shuffle": True, "fletcher32": True},
        {"compression": "lzf"},
        {"chunks": (4, 8, 8, 3), "maxshape": (None, None, None, 3)},
    ],
)
def test_values_within_the_file_are_read(tmp_path: Path, options: dict[str, Any]) -> None:
    for array in (SECRET, np.zeros((50, 64, 64, 3), np.uint8)):
        kept = {**options, "chunks": (len(array), 8, 8, 3)} if "maxshape" in options else options
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file.create_dataset("data", data=array, **kept)
        np.testing.assert_array_equal(read(tmp_path / "a.h5"), array)


def test_compact_values_are_read(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        settings.set_layout(h5py.h5d.COMPACT)
        space = h5py.h5s.create_simple(SECRET.shape)
        array = h5py.h5d.create(file.id, b"data", h5py.h5t.NATIVE_UINT8, space, dcpl=settings)
        array.write(h5py.h5s.ALL, h5py.h5s.ALL, SECRET)
    np.testing.assert_array_equal(read(tmp_path / "a.h5"), SECRET)


def test_a_named_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.h5")
    with pytest.raises(FileError, match=r"a\.h5 cannot be read: it is a named pipe, not a file$"):
        read(tmp_path / "a.h5")


def test_keras_weights_of_strangers_are_refused_too(data: Path, tmp_path: Path) -> None:
    path = tmp_path / "w.hdf5"

    def refusal(change: Callable[[Any], None]) -> str:
        path.write_bytes((data / "tiny_weights.hdf5").read_bytes())
        with h5py.File(path, "r+") as file:
            change(file)
        with pytest.raises(AttenGaitError) as caught:
            read_keras_weights(path)
        assert str(caught.value).startswith(f"{path} is refused: ")
        return str(caught.value)

    kernel = "attention_conv/attention_conv/attention_kernel:0"

    def link(file: Any) -> None:
        file["dense_99"] = h5py.ExternalLink(str(data / "tiny_weights.hdf5"), "dense")

    def circle(file: Any) -> None:
        for name in ("a", "b"):
            file["dense"][name] = file["dense"]

    def claim(file: Any) -> None:
        del file[kernel]
        file.create_dataset(kernel, (10**9,), "f4")

    def outside(file: Any) -> None:
        del file[kernel]
        file.create_dataset(kernel, (484,), "f4", external=[(str(data / "tiny_weights.hdf5"), 0, 484 * 4)])

    assert "/dense_99 is a link to another place" in refusal(link)
    assert "its groups hold too many others, or themselves" in refusal(circle)
    assert "needs 4,000,000,000 bytes" in refusal(claim)
    assert "external storage" in refusal(outside)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return foreign_files.write_hdf5(tmp_path_factory.mktemp("sound") / "001_nm-01_090.h5", SECRET)


@settings(derandomize=True, deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(where=st.floats(0, 1, exclude_max=True), change=st.integers(1, 255), cut=st.booleans())
def test_a_changed_byte_or_a_cut_never_gives_more_than_one_sentence(
    sound: Path, where: float, change: int, cut: bool
) -> None:
    content = bytearray(sound.read_bytes())
    place = int(where * len(content))
    content[place] ^= change
    path = sound.with_name("changed.h5")
    path.write_bytes(content[:place] if cut else content)
    with contextlib.suppress(FileError):
        assert read(path).dtype.kind in "biuf"
