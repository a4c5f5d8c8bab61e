"""Arrays come out of any pickle that NumPy wrote; nothing else does, and nothing in a file is ever run."""

import contextlib
import copyreg
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attengait.datasets.unpickling import PickleError, RefusedPickleError, read_array, read_header

PROTOCOLS = range(2, 6)
LARGE = (40, 64, 44)  # more than what a protocol puts into one frame with the header


def pickled(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "a.pkl"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("shape", [(3, 4, 5), (2, 3, 8, 8), LARGE])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["u1", "?", "f2", "<f4", ">f8", ">i4", "<u8"])
def test_every_protocol_order_and_number_type_comes_back(
    tmp_path: Path, protocol: int, shape: tuple[int, ...], order: Any, dtype: str
) -> None:
    array = np.asarray(np.random.default_rng(0).integers(0, 200, shape).astype(dtype), order=order)
    path = pickled(tmp_path, pickle.dumps(array, protocol))
    read, header = read_array(path), read_header(path)
    np.testing.assert_array_equal(read, array)
    assert (read.dtype, read.shape) == (array.dtype, array.shape) == (header.dtype, header.shape)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_numpy_1_and_2_name_their_modules_differently(tmp_path: Path, protocol: int) -> None:
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    data = pickle.dumps(array, protocol)
    new, old = (b"numpy._core.", b"numpy.core.") if b"numpy._core." in data else (b"numpy.core.", b"numpy._core.")
    # Text has its length before it, and a frame has the length of all of it.
    at = data.index(new)
    change = len(old) - len(new)
    other = bytearray(data.replace(new, old))
    if protocol >= 4:
        other[at - 1] += change
        other[3:11] = (int.from_bytes(data[3:11], "little") + change).to_bytes(8, "little")
    for content in (data, bytes(other)):
        np.testing.assert_array_equal(read_array(pickled(tmp_path, content)), array)


def test_a_pickle_of_python_2_is_read(tmp_path: Path) -> None:
    old = (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x02K\x03\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xff"
        b"K\x00tb\x89U\x06\x00\x01\xfd\xfe\xff\x80tb."
    )
    assert read_array(pickled(tmp_path, old)).tolist() == [[0, 1, 253], [254, 255, 128]]


class Calls:
    """Pickles as a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("read", [read_array, read_header])
def test_a_malicious_pickle_is_refused_in_one_sentence_and_runs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: int, read: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    path = pickled(tmp_path, pickle.dumps(Calls(os.mkdir, "pwned"), protocol))
    with pytest.raises(
        RefusedPickleError, match=r"a\.pkl is refused, and nothing of it was run: it asks for"
    ) as caught:
        read(path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "pwned").exists()
    pickle.loads(path.read_bytes())
    assert (tmp_path / "pwned").exists(), "the file would have done it"


def hidden_in_an_array(protocol: int, intruder: Any) -> bytes:
    """A pickle of an array whose values are what `intruder` comes to."""
    array = np.zeros(4, np.uint8)
    reconstruct, arguments, state = array.__reduce__()

    class Array:
        def __reduce__(self) -> Any:
            return reconstruct, arguments, (*state[:-1], intruder)

    return pickle.dumps(Array(), protocol)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "call",
    [
        (eval, "1"),
        (np.load, "x.npy"),
        (getattr, "text", "upper"),
        (np.zeros, 3),
        (print, "pwned"),
    ],
    ids=lambda call: str(call[0].__name__),
)
def test_a_call_hidden_in_an_array_is_refused(tmp_path: Path, capsys: Any, protocol: int, call: Any) -> None:
    path = pickled(tmp_path, hidden_in_an_array(protocol, Calls(*call)))
    for read in (read_array, read_header):
        with pytest.raises(RefusedPickleError):
            read(path)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x04\x8c\x05numpy\x8c\x0dndarray.shape\x93.",  # a name with a dot in it
        b"\x80\x04\x8c\x05numpy\x8c\x05dtype\x93}\x8c\x04callK\x01sb.",  # changes a function
        b"\x80\x04\x8c\x05numpy\x8c\x05dtype\x93N}\x8c\x05_callK\x01s\x86b.",  # changes it by its slots
        b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x04\x00\x00\x00zlib\x86R.",  # imports a codec
        b"\x80\x02\x82\x01.",  # a registered extension
    ],
)
def test_ways_around_the_list_of_names_are_refused(tmp_path: Path, data: bytes) -> None:
    copyreg.add_extension("os", "getcwd", 1)
    try:
        with pytest.raises(RefusedPickleError):
            read_array(pickled(tmp_path, data))
    finally:
        copyreg.remove_extension("os", "getcwd", 1)
    array = np.arange(6, dtype=np.uint8)
    np.testing.assert_array_equal(read_array(pickled(tmp_path, pickle.dumps(array))), array)


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x04N\x72\xff\xff\xff\xff.",  # remembers an object under number 2^32 - 1
        b"\x80\x04\x8e" + (2**40).to_bytes(8, "little") + b".",  # bytes of a terabyte
        b"\x80\x05\x96" + (2**62).to_bytes(8, "little") + b".",
        b"\x80\x04\x95" + (2**40).to_bytes(8, "little") + b".",  # a frame of a terabyte
    ],
)
def test_a_small_file_cannot_ask_for_all_memory(tmp_path: Path, data: bytes) -> None:
    for read in (read_array, read_header):
        with pytest.raises(PickleError):
            read(pickled(tmp_path, data))


def test_an_array_that_claims_to_be_huge_is_damaged(tmp_path: Path) -> None:
    reconstruct, arguments, state = np.zeros(4, np.uint8).__reduce__()

    class Array:
        def __reduce__(self) -> Any:
            return reconstruct, arguments, (state[0], (2**40, 2**20), *state[2:])

    for protocol in PROTOCOLS:
        path = pickled(tmp_path, pickle.dumps(Array(), protocol))
        for read in (read_array, read_header):
            with pytest.raises(PickleError, match="do not fill an array of shape"):
                read(path)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_whatever_is_cut_off_or_flipped_never_more_than_one_sentence_comes_out(tmp_path: Path, protocol: int) -> None:
    data = pickle.dumps(np.arange(24, dtype=np.uint8).reshape(2, 3, 4), protocol)
    for length in range(len(data) - 1):
        with pytest.raises(PickleError):
            read_array(pickled(tmp_path, data[:length]))
    for i in range(len(data)):
        flipped = data[:i] + bytes([data[i] ^ 1 << i % 8]) + data[i + 1 :]
        with contextlib.suppress(PickleError):
            assert read_array(pickled(tmp_path, flipped)).dtype.kind in "biuf"


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ([np.zeros(3)], "holds a list, not one NumPy array"),
        ({"a": 1}, "holds a dict"),
        (np.array(["a", "b"]), "array of 'U1', not of numbers"),
        (np.array([None, 1]), "array of 'O8', not of numbers"),
        (np.zeros(2, "M8[s]"), "not of numbers"),
        (np.zeros((0, 64, 64), np.uint8), "without values, of shape [0, 64, 64]"),
        (np.zeros(2, [("a", "u1")]), "not of numbers"),
    ],
)
def test_what_is_not_one_array_of_numbers_is_one_sentence(tmp_path: Path, content: Any, part: str) -> None:
    for read in (read_array, read_header):
        with pytest.raises(PickleError) as caught:
            read(pickled(tmp_path, pickle.dumps(content)))
        assert part in str(caught.value)


def test_missing_and_foreign_files_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(PickleError, match="cannot be read: No such file"):
        read_array(tmp_path / "nowhere.pkl")
    for content in (b"", b"no pickle at all", b"\x89PNG\r\n\x1a\n"):
        with pytest.raises(PickleError, match="damaged or no pickle"):
            read_header(pickled(tmp_path, content))
