"""Servers that never end, or never begin, are given up; what is set to wait longer waits longer."""

import socket
import threading
from contextlib import contextmanager

import pytest

from attengait.errors import AttenGaitError, ParameterError
from attengait.store import open_store
from attengait.store.location import Location
from attengait.store.waiting import Wait


@contextmanager
def server_of(answer):
    """A server that sends what `answer` gives, piece by piece, to each request, until the test is over."""
    is_over = threading.Event()

    def serve(connection):
        with connection:
            try:
                connection.recv(65536)
                for piece in answer:
                    if is_over.is_set():
                        return
                    connection.sendall(piece)
                    if len(piece) < 100:
                        is_over.wait(0.01)
                is_over.wait()
            except OSError:
                return

    def accept():
        while not is_over.is_set():
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=accept, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            is_over.set()


class Endless:
    """An iterable that begins anew for each request."""

    def __init__(self, head, piece):
        self._head, self._piece = head, piece

    def __iter__(self):
        yield self._head
        while True:
            yield self._piece


HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 100000000000000\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
MEGABYTE = bytes(2**20)


@pytest.mark.parametrize(
    "answer",
    [[], [b"HTTP/1.1 200"], Endless(HEAD, b"   "), Endless(b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n")],
    ids=["nothing", "half a line", "a body bit by bit", "headers bit by bit"],
)
def test_a_server_that_is_slow_is_given_up(monkeypatch, answer):
    monkeypatch.setenv("ATTENGAIT_REQUEST_SECONDS", "0.3")
    with (
        server_of(answer) as url,
        pytest.raises(
            AttenGaitError,
            match=rf"^{url}/s\.zarr/zarr\.json cannot be reached: no whole answer came within 0.3 seconds",
        ),
    ):
        open_store(f"{url}/s.zarr")


@pytest.mark.parametrize(
    "answer",
    [Endless(HEAD, MEGABYTE), Endless(CHUNKED, b"100000\r\n" + MEGABYTE + b"\r\n")],
    ids=["a body of 10^14 bytes", "a body without a size"],
)
def test_a_server_that_never_ends_is_given_up_before_memory_is_full(monkeypatch, answer):
    monkeypatch.setenv("ATTENGAIT_REQUEST_SURPLUS_MB", "32")
    with (
        server_of(answer) as url,
        pytest.raises(
            AttenGaitError, match=rf"^{url}/s\.zarr/zarr\.json cannot be read: while it was waited for, memory grew"
        ),
    ):
        open_store(f"{url}/s.zarr")


def test_an_answer_of_too_many_bytes_is_refused():
    body = b"HTTP/1.1 200 OK\r\nContent-Length: 2000000\r\n\r\n" + bytes(2_000_000)
    with (
        server_of([body]) as url,
        pytest.raises(AttenGaitError, match=r"zarr\.json has 2000000 bytes, but must have at most 1048576"),
    ):
        open_store(f"{url}/s.zarr")


@pytest.mark.parametrize("name", ["ATTENGAIT_REQUEST_SECONDS", "ATTENGAIT_REQUEST_SURPLUS_MB"])
@pytest.mark.parametrize("value", ["a minute", "-1", "nan", "inf", ""])
def test_a_setting_that_is_no_number_is_refused(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(ParameterError, match=rf"^{name} is {value!r}, but must be a number from 0 on$"):
        Wait("s.zarr")


def test_a_cloud_is_trusted_not_to_send_more_and_a_web_server_is_not(monkeypatch):
    monkeypatch.setenv("ATTENGAIT_REQUEST_SURPLUS_MB", "nonsense")
    Location.parse("s3://bucket/s.zarr").wait("s.zarr")
    with pytest.raises(ParameterError, match="ATTENGAIT_REQUEST_SURPLUS_MB"):
        Location.parse("https://host/s.zarr").wait("s.zarr")
