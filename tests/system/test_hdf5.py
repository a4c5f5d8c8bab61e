"""Of an HDF5 file only numbers that lie in it are read, whatever the file says; sound files are read as before."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attengait.datasets.published_h5 import Hdf5Array, Hdf5Error
from attengait.errors import AttenGaitError
from attengait.model.keras import read_keras_weights
from attengait.system import hdf5
from attengait.system.hdf5 import check_numbers, datasets, member, open_hdf5

PICTURES = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3), np.uint8)


def read(path: Path) -> np.ndarray[Any, Any]:
    return Hdf5Array(path=str(path), shape=()).read()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"chunks": (5, 8, 8, 3)},
        {"chunks": (5, 8, 8, 3), "compression": "gzip", "shuffle": True, "fletcher32": True},
        {"chunks": True, "compression": "lzf"},
        {"chunks": (1, 8, 8, 3), "maxshape": (None, 8, 8, 3)},
    ],
    ids=str,
)
@pytest.mark.parametrize("libver", ["earliest", "latest"])
@pytest.mark.parametrize("content", [PICTURES, np.zeros_like(PICTURES)], ids=["pictures", "zeros"])
def test_whatever_plainly_lies_in_the_file_is_read(tmp_path: Path, options: Any, libver: str, content: Any) -> None:
    with h5py.File(tmp_path / "a.h5", "w", libver=libver) as file:
        file.create_dataset("data", data=content, **options)
    np.testing.assert_array_equal(read(tmp_path / "a.h5"), content)


def test_compact_storage_and_very_even_pictures_are_read(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_layout(h5py.h5d.COMPACT)
        space = h5py.h5s.create_simple((2, 8, 8))
        made = h5py.h5d.create(file.id, b"data", h5py.h5t.NATIVE_UINT8, space, properties)
        made.write(h5py.h5s.ALL, h5py.h5s.ALL, PICTURES[:2, ..., 0].copy())
    np.testing.assert_array_equal(read(tmp_path / "a.h5"), PICTURES[:2, ..., 0])
    black = np.zeros((600, 64, 64, 3), np.uint8)
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file.create_dataset("data", data=black, chunks=black.shape, compression=9)
    assert not read(tmp_path / "b.h5").any()


def external_storage(file: h5py.File, secret: Path) -> None:
    file.create_dataset("data", (1, 2, 8), np.uint8, external=[(str(secret), 0, 16)])


def external_link(file: h5py.File, secret: Path) -> None:
    with h5py.File(secret.with_suffix(".h5"), "w") as other:
        other["data"] = PICTURES
    file["data"] = h5py.ExternalLink(str(secret.with_suffix(".h5")), "data")


def soft_link(file: h5py.File, secret: Path) -> None:
    external_link(file, secret)
    file.move("data", "other")
    file["data"] = h5py.SoftLink("/other")


def virtual_dataset(file: h5py.File, secret: Path) -> None:
    with h5py.File(secret.with_suffix(".h5"), "w") as other:
        other["data"] = PICTURES
    layout = h5py.VirtualLayout(PICTURES.shape, np.uint8)
    layout[:] = h5py.VirtualSource(str(secret.with_suffix(".h5")), "data", PICTURES.shape)
    file.create_virtual_dataset("data", layout)


def references(file: h5py.File, secret: Path) -> None:
    file.create_dataset("data", data=[file.ref] * 2, dtype=h5py.ref_dtype)


def region_references(file: h5py.File, secret: Path) -> None:
    other = file.create_dataset("other", data=PICTURES)
    file.create_dataset("data", data=[other.regionref[:2]], dtype=h5py.regionref_dtype)


def lists(file: h5py.File, secret: Path) -> None:
    file.create_dataset("data", (2,), h5py.vlen_dtype(np.uint8))


def two_million_pictures(file: h5py.File, secret: Path) -> None:
    file.create_dataset("data", (2_000_000, 64, 64, 3), np.uint8, chunks=(8, 64, 64, 3), compression="gzip")


def pictures_not_written(file: h5py.File, secret: Path) -> None:
    file.create_dataset("data", (20, 8, 8, 3), np.uint8, chunks=(10, 8, 8, 3))[:10] = PICTURES[:10]


def contiguous_not_written(file: h5py.File, secret: Path) -> None:
    file.create_dataset("data", (20, 8, 8, 3), np.uint8)


def one_huge_chunk(file: h5py.File, secret: Path) -> None:
    file.create_dataset("data", (1, 8, 8), np.uint8, chunks=(1 << 25, 8, 8), maxshape=(None, 8, 8), compression=9)


def bomb(file: h5py.File, secret: Path) -> None:
    """A chunk that unpacks to far more than its shape has."""
    import zlib

    made = file.create_dataset("data", (1, 8, 8), np.uint8, chunks=(1, 8, 8), compression=9)
    made.id.write_direct_chunk((0, 0, 0), zlib.compress(bytes(1 << 24), 9))


def other_filter(file: h5py.File, secret: Path) -> None:
    file.create_dataset("data", data=PICTURES.astype(np.int32), chunks=True, scaleoffset=8)


STRANGE: list[Callable[[h5py.File, Path], None]] = [
    external_storage,
    external_link,
    soft_link,
    virtual_dataset,
    references,
    region_references,
    lists,
    two_million_pictures,
    pictures_not_written,
    contiguous_not_written,
    one_huge_chunk,
    bomb,
    other_filter,
]


@pytest.mark.parametrize("make", STRANGE, ids=lambda make: make.__name__)
def test_what_does_not_lie_in_the_file_is_one_sentence_with_file_and_dataset(tmp_path: Path, make: Any) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_bytes(b"the user's secret")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        make(file, secret)
    with pytest.raises(Hdf5Error, match=r"a\.h5 (is refused: its data|holds no array of numbers named data)") as caught:
        read(tmp_path / "a.h5")
    assert str(caught.value).isprintable()
    # The same within weights.
    with h5py.File(tmp_path / "w.h5", "w") as file:
        make(file.create_group("dense/dense"), secret)
    if make not in (references, region_references, lists, bomb, *[m for m in STRANGE if "picture" in m.__name__]):
        with pytest.raises(AttenGaitError, match=r"w\.h5"):
            read_keras_weights(tmp_path / "w.h5")


def test_a_scale_that_is_no_number_is_one_sentence(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["data"] = PICTURES
        file.attrs["compressFactor"] = "1"
    with pytest.raises(Hdf5Error, match="compressFactor is no number"):
        read(tmp_path / "a.h5")


def test_groups_that_hold_themselves_are_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        group = file.create_group("dense")
        group["dense"] = group
    with pytest.raises(AttenGaitError, match=r"a\.h5 is refused: its dense/dense/.* is a group more than 16 deep"):
        read_keras_weights(path)
    with h5py.File(path, "w") as file:
        group = file.create_group("dense")
        for i in range(8):  # 8 ** 15 ways
            group[str(i)] = group
    with pytest.raises(AttenGaitError, match=r"a\.h5 is refused: "):
        read_keras_weights(path)


def test_more_objects_than_weights_have_are_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hdf5, "MAX_OBJECTS", 20)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for i in range(21):
            file.create_group(str(i))
    with pytest.raises(AttenGaitError, match="is one of more than 20 objects"):
        read_keras_weights(tmp_path / "a.h5")


@pytest.mark.parametrize("of_whom", [read, read_keras_weights])
def test_a_named_pipe_is_not_waited_for(tmp_path: Path, of_whom: Any) -> None:
    os.mkfifo(tmp_path / "a.h5")
    with pytest.raises(AttenGaitError, match=r"a\.h5 cannot be read: it is a named pipe, not a file"):
        of_whom(tmp_path / "a.h5")


@settings(max_examples=60, derandomize=True, deadline=None)
@given(
    st.booleans(),
    st.lists(st.tuples(st.integers(0, 3000), st.binary(min_size=1, max_size=8)), min_size=1, max_size=4),
    st.one_of(st.none(), st.integers(0, 3000)),
)
def test_a_damaged_file_is_read_or_one_sentence(
    tmp_path_factory: Any, is_packed: bool, changes: list[tuple[int, bytes]], cut: int | None
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("data", data=PICTURES[:2], chunks=(1, 8, 8, 3), compression="gzip" if is_packed else None)
        file.create_group("group")["other"] = np.zeros(3, np.float32)
    data = bytearray(path.read_bytes()[:cut])
    for at, new in changes:
        data[at : at + len(new)] = new
    path.write_bytes(data)
    with contextlib.suppress(Hdf5Error):
        assert read(path).dtype.kind in "biuf"
    with contextlib.suppress(AttenGaitError), open_hdf5(path) as file:
        for _, dataset in datasets(file):
            check_numbers(dataset)
        member(file, "group")
