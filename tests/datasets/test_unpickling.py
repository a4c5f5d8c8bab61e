"""Arrays come out of any pickle that NumPy wrote; nothing else does, and nothing in a file is ever run."""

import contextlib
import copyreg
import os
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attengait.datasets.pickle_reader import _INSTRUCTIONS, MAX_INSTRUCTIONS
from attengait.datasets.unpickling import PickleError, RefusedPickleError, read_array, read_header

PROTOCOLS = range(6)
LARGE = (40, 64, 44)  # more than what a protocol puts into one frame with the header


def pickled(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "a.pkl"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("shape", [(2, 3, 8, 8), LARGE])
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


def nested(depth: int) -> bytes:
    """A tuple of two times the tuple before it: 2 ** depth leaves in a few bytes."""
    return b")" + b"2\x86" * depth


def an_array(
    *, shape: bytes = b"K\x02\x85", name: bytes = b"\x8c\x02u1", data: bytes = b"C\x02ab", order: bytes = b"\x8c\x01|"
) -> bytes:
    """A pickled array, any part of it replaced."""
    made = b"\x80\x04cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R"
    dtype = b"cnumpy\ndtype\n" + name + b"\x89\x88\x87R(K\x03" + order + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    return made + b"(K\x01" + shape + dtype + b"\x89" + data + b"tb."


def long1(number: int, num_bytes: int) -> bytes:
    return b"\x8a" + bytes([num_bytes]) + number.to_bytes(num_bytes, "little")


ENDLESS = {
    "a nested tuple as a key": b"\x80\x02}" + nested(40) + b"Ns.",
    "a nested tuple in a set": b"\x80\x04\x8f(" + nested(40) + b"\x90.",
    "a nested tuple as a shape": an_array(shape=nested(40)),
    "a nested tuple as a name": an_array(name=nested(40)),
    "a nested tuple as an order": an_array(order=nested(40)),
    "wide tuples in tuples": b"\x80\x02" + b"(" + b")" * 60 + b"t" + (b"q\x00(" + b"h\x00" * 60 + b"t") * 12 + b".",
    "a list in itself": b"\x80\x02]q\x00h\x00a.",
    "many sets": b"\x80\x04" + b"\x8f" * 100_000 + b".",
    "many marks": b"\x80\x04" + b"(" * 100_000 + b".",
    "many memories": b"\x80\x04N" + b"\x94" * 100_000 + b".",
    "deep tuples": b"\x80\x02)" + b"\x85" * 100_000 + b".",
    "equal keys": b"\x80\x02}(" + b"".join(long1((i + 1) * (2**61 - 1), 10) + b"N" for i in range(9000)) + b"u.",
    "a shape of many numbers": an_array(shape=b"(" + long1(2**62, 8) * 9000 + b"t"),
    "a shape of many digits": an_array(shape=b"\x8b" + struct.pack("<i", 2077) + b"\x7f" * 2077 + b"\x85"),
    "a number of many digits": b"I" + b"9" * 5000 + b"\n.",
    "a long number of many digits": b"L" + b"9" * 100_000 + b"L\n.",
    "a long name": b"\x80\x02c" + b"a" * 100_000 + b"\nb\n.",
    "a long dtype": an_array(name=b"X" + struct.pack("<I", 100_000) + b"u" * 100_000),
    "pops": b"\x80\x02" + b"N0" * 100_000 + b".",
}
TRIPS = {
    "a shape of 100 axes": an_array(shape=b"(" + b"K\x01" * 99 + b"K\x02t"),
    "a shape of 33 axes": an_array(shape=b"(" + b"K\x01" * 32 + b"K\x02t"),
    "a shape of truth values": an_array(shape=b"\x88\x88\x86"),
    "a shape below zero": an_array(shape=b"J\xfe\xff\xff\xff\x85"),
    "no shape": an_array(shape=b"N"),
    "text that stands for no bytes": an_array(data=b"\x8c\x06" + "\u20ac\u20ac".encode()),
    "too many values": an_array(data=b"C\x03abc"),
    "a second array": an_array() * 2,
    "escape sequences in a name": b"\x80\x02cos\x1b]0;owned\x07\x1b[2J\nsys\x1b[31mtem\n.",
    **{
        f"the dtype {name!r}": an_array(name=b"\x8c" + bytes([len(name)]) + name)
        for name in (
            b"01f4,f4",
            b"(01,2)f4",
            b",",
            b"(,)u1",
            b"u1,u1",
            b"{'a':1}",
            b"u1\x00",
            b"O",
            b"V8",
            b"M8[s]",
            b"c8",
        )
    },
}


@pytest.mark.parametrize("data", [*ENDLESS.values(), *TRIPS.values()], ids=[*ENDLESS, *TRIPS])
def test_what_no_array_needs_is_one_short_sentence(tmp_path: Path, data: bytes) -> None:
    """The ends of those that were endless are the test: nothing here measures time."""
    path = pickled(tmp_path, data)
    with pytest.raises(PickleError) as caught:
        read_array(path)
    sentence = str(caught.value)
    assert sentence.isprintable()
    assert len(sentence) < len(str(path)) + 200
    with contextlib.suppress(PickleError):
        read_header(path)


def test_the_parts_that_are_replaced_above_make_an_array(tmp_path: Path) -> None:
    assert read_array(pickled(tmp_path, an_array())).tolist() == [97, 98]
    assert read_array(pickled(tmp_path, an_array(shape=b"(" + b"K\x01" * 31 + b"K\x02t"))).ndim == 32


def test_the_largest_pickle_of_an_array_is_far_from_the_limits(tmp_path: Path) -> None:
    array = np.zeros((1,) * 31 + (2,), ">f8")
    data = pickle.dumps(array, 0)
    assert read_array(pickled(tmp_path, data)).shape == array.shape
    assert len(data.split(b"\n")) < MAX_INSTRUCTIONS / 2


def test_a_named_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.pkl")
    for read in (read_array, read_header):
        with pytest.raises(PickleError, match=r"a\.pkl cannot be read: it is a named pipe, not a file"):
            read(tmp_path / "a.pkl")


STEPS = st.one_of(
    st.sampled_from([bytes([code]) for code in range(256)]),
    st.sampled_from(sorted(_INSTRUCTIONS)),
    st.sampled_from([b"cnumpy\ndtype\n", b"\x8c\x02u1", b"K\x02", b"\x85R", an_array()[2:-1], nested(3)]),
    st.binary(max_size=6),
)


@settings(max_examples=100, derandomize=True, deadline=None)
@given(st.lists(STEPS, max_size=30))
def test_any_instructions_give_an_array_or_one_sentence(tmp_path_factory: Any, steps: list[bytes]) -> None:
    path = tmp_path_factory.getbasetemp() / "any.pkl"
    path.write_bytes(b"".join(steps) + b".")
    for read in (read_array, read_header):
        with contextlib.suppress(PickleError):
            assert np.dtype(read(path).dtype).kind in "biuf"


@settings(max_examples=100, derandomize=True, deadline=None)
@given(
    st.integers(0, 5),
    st.sampled_from(["u1", "?", "<f4", ">i8", "f2"]),
    st.lists(st.integers(1, 5), max_size=5),
    st.booleans(),
    st.lists(st.tuples(st.integers(0), st.integers(0, 255)), max_size=3),
)
def test_a_changed_array_is_one_sentence_and_a_whole_one_comes_back(
    tmp_path_factory: Any, protocol: int, dtype: str, shape: list[int], is_fortran: bool, changes: list[tuple[int, int]]
) -> None:
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
    data = bytearray(pickle.dumps(np.asfortranarray(array) if is_fortran else array, protocol))
    path = tmp_path_factory.getbasetemp() / "changed.pkl"
    path.write_bytes(data)
    np.testing.assert_array_equal(read_array(path), array)
    for at, value in changes:
        data[at % len(data)] = value
    path.write_bytes(data)
    with contextlib.suppress(PickleError):
        read = read_array(path)
        assert (read.shape, read.dtype) == (read_header(path).shape, read_header(path).dtype)
