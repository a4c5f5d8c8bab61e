"""Servers that fail, refuse, lose the connection or say nothing are one sentence with the URL."""

import os
import subprocess
import sys
from importlib import import_module

import numpy as np
import pytest

from attengait.errors import AttenGaitError
from attengait.store import open_store
from attengait.store.verify import verify

servers = import_module("servers")

pytestmark = pytest.mark.usefixtures("_settings")


def test_a_server_that_is_lost_is_no_damage(http):
    http.broken["frames/c"] = 403
    with pytest.raises(AttenGaitError, match=r"/frames/c/0/0/0/0 is refused by the server"):
        verify(f"{http.url}/gait/lz4.zarr")


@pytest.mark.parametrize("fault", ["close", "half", 500, 503, 429])
def test_a_lost_connection_and_a_busy_server_are_tried_again(finished, http, fault):
    http.faults = [fault] * 3
    store = open_store(f"{http.url}/gait/zstd.zarr")
    assert not http.faults
    http.faults = [fault] * 3
    np.testing.assert_array_equal(store[4], open_store(finished / "zstd.zarr")[4])
    assert not http.faults


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (403, r"is refused by the server \(HTTP 403: Forbidden\): check its name and the credentials"),
        (401, r"is refused by the server \(HTTP 401: Unauthorized\): check its name and the credentials"),
        (503, r"cannot be reached, the last of 7 attempts ended so: HTTP 503: Service Unavailable"),
        ("half", r"cannot be reached, the last of 7 attempts ended so: Transferred a partial file.*"),
    ],
)
def test_a_server_that_goes_on_failing_is_one_sentence_with_the_url(http, fault, sentence):
    http.broken["gait/lz4.zarr/zarr.json"] = fault
    with pytest.raises(AttenGaitError, match=rf"^{http.url}/gait/lz4\.zarr/zarr\.json {sentence}$") as caught:
        open_store(f"{http.url}/gait/lz4.zarr")
    assert "\n" not in str(caught.value)


def test_nobody_at_the_port_is_said():
    with servers.Server() as gone:
        url = gone.url
    with pytest.raises(AttenGaitError, match=rf"^{url}/w\.zarr/\S+ cannot be reached, .*Could not connect to server"):
        open_store(f"{url}/w.zarr")


def test_a_server_that_says_nothing_is_given_up():
    """The limits are read once, at a process's first use, so they are tried in another process."""
    program = (
        "import socket, sys\n"
        "from attengait.store import location\n"
        "location._WAITING['LOW_SPEED_TIME_SECONDS'] = '1'\n"
        "location.MAX_RETRIES = 1\n"
        "location.limit_waiting()\n"
        "silent = socket.create_server(('127.0.0.1', 0))\n"
        "try:\n"
        "    location.Location.parse(f'http://127.0.0.1:{silent.getsockname()[1]}/w.zarr').read('zarr.json')\n"
        "except location.AttenGaitError as error:\n"
        "    print(error)\n"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TENSORSTORE_")}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=600, check=True
    )
    assert "w.zarr/zarr.json cannot be reached, the last of 2 attempts ended so: " in done.stdout
    assert "Timeout was reached" in done.stdout


def test_what_is_not_there_is_said(http, s3):
    with pytest.raises(AttenGaitError, match=rf"^{http.url}/x is not a store: there is no {http.url}/x/zarr\.json$"):
        open_store(f"{http.url}/x")
    with pytest.raises(AttenGaitError, match=r"^s3://bucket/x is not a store: there is no s3://bucket/x/zarr\.json$"):
        open_store("s3://bucket/x")
    with pytest.raises(AttenGaitError, match=r"^s3://another/x does not exist: there is no such bucket$"):
        open_store("s3://another/x")
    with pytest.raises(AttenGaitError, match=r"^s3://x/w\.zarr cannot be .*Invalid S3 bucket name"):
        open_store("s3://x/w.zarr")
