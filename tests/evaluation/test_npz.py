"""Reading arrays that a stranger wrote: right values or one sentence, and never more memory than the file is worth."""

import io
import os
import struct
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attengait.evaluation.npz import MOST_LETTERS, NpzError, read_arrays

PROPERTY = settings(
    derandomize=True,
    deadline=None,
    max_examples=100,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
DTYPES = ("<f4", ">f8", "<f2", "|u1", "<i8", "|b1", "<U3", ">U5")


def header(descr: object, shape: object, is_fortran: object = False, version: int = 1) -> bytes:
    """The beginning of an `.npy` file, whatever it claims."""
    text = repr({"descr": descr, "fortran_order": is_fortran, "shape": shape}).encode() + b"\n"
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H" if version == 1 else "<I", len(text)) + text


def write(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return path


@PROPERTY
@given(
    dtype=st.sampled_from(DTYPES),
    shape=st.lists(st.integers(0, 3), max_size=4).map(tuple),
    is_compressed=st.booleans(),
    is_fortran=st.booleans(),
)
def test_what_numpy_wrote_is_read(
    dtype: str, shape: tuple[int, ...], is_compressed: bool, is_fortran: bool, tmp_path: Path
):
    values = np.random.default_rng(0).integers(0, 2, shape)
    array = np.array(values, dtype, order="F" if is_fortran else "C")
    (np.savez_compressed if is_compressed else np.savez)(tmp_path / "a.npz", a=array, b=np.zeros(2))
    found = read_arrays(tmp_path / "a.npz", ["a", "c"])
    assert list(found) == ["a"]
    assert (found["a"].dtype, found["a"].shape) == (array.dtype, shape)
    np.testing.assert_array_equal(found["a"], array)


@PROPERTY
@given(
    descr=st.one_of(
        st.sampled_from([*DTYPES, "|O", "<M8[s]", "<f3", "U", "<U0", "f4,f4"]), st.text(max_size=4), st.none()
    ),
    shape=st.one_of(st.lists(st.integers(-1, 2**70), max_size=10).map(tuple), st.integers(), st.tuples(st.booleans())),
    is_fortran=st.one_of(st.booleans(), st.integers()),
    version=st.integers(0, 4),
    data=st.binary(max_size=32),
)
def test_a_header_that_says_anything_gives_that_array_or_one_error(
    descr: object, shape: object, is_fortran: object, version: int, data: bytes, tmp_path: Path
):
    write(tmp_path / "a.npz", {"a": header(descr, shape, is_fortran, version) + data})
    try:
        found = read_arrays(tmp_path / "a.npz", ["a"])["a"]
    except NpzError:
        pass
    else:
        assert (found.dtype, found.shape, found.nbytes) == (np.dtype(str(descr)), shape, len(data))


@PROPERTY
@given(text=st.text(st.characters(codec="ascii"), max_size=40))
def test_a_header_that_is_no_python_literal_is_one_error(text: str, tmp_path: Path):
    content = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()
    with pytest.raises(NpzError, match="are damaged"):
        read_arrays(write(tmp_path / "a.npz", {"a": content}), ["a"])


@PROPERTY
@given(content=st.binary(max_size=200))
def test_bytes_that_are_no_zip_file_are_one_error(content: bytes, tmp_path: Path):
    (tmp_path / "a.npz").write_bytes(b"PK\x03\x04" + content)
    with pytest.raises(NpzError, match="are damaged"):
        read_arrays(tmp_path / "a.npz", ["a"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (header("<f4", (10**6, 10**6)), r"hold a of shape \[1000000, 1000000\] and float32, .* but 0 bytes are there"),
        (
            header("<f4", (2,)) + bytes(4),
            r"hold a of shape \[2\] and float32, which are 8 bytes, but 4 bytes are there",
        ),
        (header("<f4", (2,)) + bytes(12), r"8 bytes, but 12 bytes are there"),
        (header("<U2000", (1,)) + bytes(8000), rf"whose texts have up to 2,000 letters \(at most {MOST_LETTERS}\)"),
        (header("<U1", (1,)) + struct.pack("<I", 0xFFFFFF), "are damaged"),
        (header("<U1", (1,)) + struct.pack("<I", 0xD800), "are damaged"),
        (header("|O", (1,)) + bytes(8), "no Python objects"),
        (header("<f4", (1,)).replace(b"shape", b"shap\xff") + bytes(4), "are damaged"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff", "are damaged"),
        (b"\x93NUMPY\x01\x00\xff\x7f" + b"(" * 0x7FFF, "are damaged"),
        (b"\x93NUMPY\x01\x00\x88\x13" + b"(" * 5000, "are damaged"),
        (b"", "are damaged"),
    ],
)
def test_a_header_that_lies_is_refused_before_anything_is_allocated(tmp_path: Path, content: bytes, message: str):
    path = write(tmp_path / "a.npz", {"a": content})
    tracemalloc.start()
    try:
        with pytest.raises(NpzError, match=message):
            read_arrays(path, ["a"])
        assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    finally:
        tracemalloc.stop()


def test_an_array_that_is_there_twice_is_refused(tmp_path: Path):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", header("|u1", (1,)) + b"1")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("a.npy", header("|u1", (1,)) + b"2")
    with pytest.raises(NpzError, match="hold a twice"):
        read_arrays(path, ["a"])


def test_a_few_compressed_bytes_that_claim_many_are_refused_unread(tmp_path: Path):
    content = header("|u1", (2**31,)) + bytes(1000)
    path = write(tmp_path / "a.npz", {"a": content}, zipfile.ZIP_DEFLATED)
    data = bytearray(path.read_bytes())
    real, claimed = len(content), 2**31 + len(content) - 1000
    central = data.rindex(b"PK\x01\x02")
    assert struct.unpack_from("<I", data, central + 24) == (real,)
    struct.pack_into("<I", data, central + 24, claimed)
    path.write_bytes(data)
    with pytest.raises(NpzError, match=r"hold a, which would take 2,147,\d\d\d,\d\d\d bytes of \d+ compressed ones"):
        read_arrays(path, ["a"])


def test_other_ways_to_compress_are_refused(tmp_path: Path):
    content = header("|u1", (1,)) + b"1"
    for compression in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        with pytest.raises(NpzError, match="are damaged"):
            read_arrays(write(tmp_path / "a.npz", {"a": content}, compression), ["a"])


def test_a_named_pipe_is_refused_at_once(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.npz")
    with pytest.raises(OSError, match="it is a named pipe, not a file"):
        read_arrays(tmp_path / "pipe.npz", ["a"])


def test_every_flipped_byte_is_refused_or_harmless(tmp_path: Path):
    arrays: dict[str, Any] = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array(["x", "yz"])}
    content = io.BytesIO()
    np.savez(content, **arrays)
    whole = content.getvalue()
    refused = 0
    for position in range(len(whole)):
        for mask in (1 << position % 8, 0xFF):
            damaged = bytearray(whole)
            damaged[position] ^= mask
            (tmp_path / "a.npz").write_bytes(damaged)
            try:
                found = read_arrays(tmp_path / "a.npz", arrays)
            except NpzError:
                refused += 1
            else:  # a date, or a name that is now missing
                for name in found:
                    np.testing.assert_array_equal(found[name], arrays[name])
    assert refused > len(whole)
