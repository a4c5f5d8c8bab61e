"""Arrays come out of any pickle that NumPy wrote; nothing else does, and nothing in a file is ever run."""

import contextlib
import copyreg
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attengait.datasets.unpickling import PickleError, RefusedPickleError, read_array, read_header

PROTOCOLS = range(6)
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


@pytest.mark.parametrize("protocol", range(2, 6))
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


def array_pickle(
    shape: bytes = b"K\x02\x85",
    dtype: bytes = b"\x8c\x02u1\x89\x88\x87",
    state: bytes = b"(K\x03\x8c\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t",
    data: bytes = b"C\x02ab",
) -> bytes:
    """A pickle of protocol 4 that holds the array of the two bytes `ab`, if no part is replaced."""
    head = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R"
    return b"\x80\x04" + head + b"(K\x01" + shape + b"cnumpy\ndtype\n" + dtype + b"R" + state + b"b\x89" + data + b"tb."


def nested(depth: int) -> bytes:
    """A tuple that holds the same tuple twice, and so on: 2 ** depth leaves in a few bytes."""
    return b")" + b"2\x86" * depth


def shared(depth: int) -> bytes:
    """The same without the operation that doubles: by remembered objects."""
    return b")\x94" + b"".join(b"h%ch%c\x86\x94" % (i, i) for i in range(depth))


DIGITS = (10**5000).to_bytes(2077, "little")

HOSTILE = {
    "a nested tuple as a key": b"\x80\x02}" + nested(40) + b"Ns.",
    "a nested tuple in a set": b"\x80\x04\x8f(" + nested(40) + b"\x90.",
    "a nested tuple as an array's values": array_pickle(data=shared(40)),
    "a nested tuple as a byte order": array_pickle(state=b"(K\x03" + shared(40) + b"NNNt"),
    "a nested tuple as a shape": array_pickle(shape=shared(40)),
    "a nested tuple as a dtype": array_pickle(dtype=shared(40) + b"\x89\x88\x87"),
    "a list deep in an array": array_pickle(data=b"]"),
    "a dict as a dtype's metadata": array_pickle(state=b"(K\x03\x8c\x01<NNNNNN}t"),
    "many lists": b"\x80\x02" + b"]" * 100_000 + b".",
    "many marks": b"\x80\x02" + b"(" * 100_000 + b".",
    "much to remember": b"\x80\x04N" + b"\x94" * 100_000 + b".",
    "many pops": b"\x80\x02" + b"N0" * 100_000 + b".",
    "many operations": b"\x80\x02" + b"\x80\x02" * 100_000 + b"N.",
    "many axes": array_pickle(shape=b"(" + b"K\x01" * 35 + b"K\x02t"),
    "axes beyond the stack": array_pickle(shape=b"(" + b"K\x01" * 99 + b"K\x02t"),
    "a length of 5000 digits": array_pickle(shape=b"\x8b" + len(DIGITS).to_bytes(4, "little") + DIGITS + b"\x85"),
    "a length of 600 digits and none": array_pickle(shape=b"\x8a\xff" + b"\x7f" * 255 + b"K\x00\x86"),
    "a length of 5000 digits in text": array_pickle(shape=b"L" + b"9" * 5000 + b"L\n\x85"),
    "a length that is true": array_pickle(shape=b"\x88\x88\x86"),
    "values that are no bytes": array_pickle(data=b"\x8c\x06" + "\u20ac\u20ac".encode()),
    "a dtype's name of a million letters": array_pickle(
        dtype=b"X" + (1_000_000).to_bytes(4, "little") + b"u" * 1_000_000 + b"\x89\x88\x87"
    ),
    "bytes in place of arguments": b"\x80\x04cnumpy\ndtype\nC\x02u1R.",
    "bytes in place of a state": b"\x80\x04cnumpy\ndtype\n\x8c\x02u1\x85RC\x05abcdeb.",
    **{
        f"the dtype {name.decode()!r}": array_pickle(dtype=b"\x8c" + bytes([len(name)]) + name + b"\x89\x88\x87")
        for name in (b"01f4,f4", b"(01,2)f4", b",", b"(,)u1", b"", b"(", b"\x00", b"U99999999", b"u3", b"{'a':1}", b"O")
    },
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_what_would_take_all_time_or_memory_is_one_sentence(tmp_path: Path, data: bytes) -> None:
    assert read_array(pickled(tmp_path, array_pickle())).tolist() == [97, 98]
    path = pickled(tmp_path, data)
    with pytest.raises(PickleError) as caught:
        read_array(path)
    with contextlib.suppress(PickleError):
        read_header(path)
    assert len(str(caught.value)) < len(str(path)) + 200


def test_names_of_functions_are_shown_without_control_characters(tmp_path: Path) -> None:
    with pytest.raises(RefusedPickleError, match=r"asks for os\\x1b\[2J\.system, which") as caught:
        read_header(pickled(tmp_path, b"\x80\x02cos\x1b[2J\nsystem\n."))
    assert str(caught.value).isprintable()


def test_a_named_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.pkl")
    with pytest.raises(PickleError, match=r"a\.pkl cannot be read: it is a named pipe, not a file$"):
        read_header(tmp_path / "a.pkl")


parts = st.lists(
    st.one_of(
        st.sampled_from(list(b"(.012NRbtuasehjgpqrQPioclFGIJKLMSTUVX)]}")).map(lambda code: bytes([code])),
        st.integers(0x80, 0x98).map(lambda code: bytes([code])),
        st.sampled_from((b"cnumpy\ndtype\n", b"\x8c\x02u1", b"K\x02\x85", b"C\x02ab", b"\x89\x88\x87R", b"\x94h\x00")),
        st.sampled_from([array_pickle()[i:j] for i, j in ((2, 62), (2, -1), (40, 90), (60, 120), (90, -1))]),
        st.binary(max_size=9),
    ),
    max_size=40,
).map(b"".join)


@settings(
    derandomize=True, deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(head=st.sampled_from([b"", b"\x80\x02", b"\x80\x04"]), body=parts, cut=st.integers(0, 200))
def test_any_operations_give_numbers_or_one_sentence(tmp_path: Path, head: bytes, body: bytes, cut: int) -> None:
    for data in (head + body, array_pickle()[:cut] + body):
        for read in (read_array, read_header):
            with contextlib.suppress(PickleError):
                assert read(pickled(tmp_path, data)).dtype.kind in "biuf"
