"""Where a store is: a folder, or a prefix of keys behind an s3://, gs://, http:// or https:// URL.

Everything that is done to the objects of a store (read whole or in part, look whether it is there, write whole) is done
here: for folders by plain files, for URLs by tensorstore's key-value stores, which are loaded at the first use.

    s3://BUCKET/PATH     the endpoint of AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL, the region of AWS_REGION or
                         AWS_DEFAULT_REGION, else the bucket's own; credentials where all AWS tools find them (the
                         environment, ~/.aws, the role of a machine), without any anonymous access, which public
                         buckets allow
    gs://BUCKET/PATH     Google's default credentials, else anonymous access
    http(s)://HOST/PATH  to read only; a query such as ?token=... and a login such as USER:PASSWORD@HOST are sent along
                         and left out of messages

A port where nobody listens, a lost connection, and a server that is busy or silent are tried again, `MAX_RETRIES`
times. How long an answer may take is limited (attengait.store.waiting). After `limit_waiting()`, a server that says
nothing is noticed earlier.
"""

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

from attengait.errors import AttenGaitError, ParameterError
from attengait.store.waiting import Wait
from attengait.system.files import open_regular
from attengait.system.lookup import check_name

DRIVERS = {"s3": "s3", "gs": "gcs", "http": "http", "https": "http"}
"""Schemes of URLs, and tensorstore's name for what reads them."""

MAX_RETRIES = 6
FIRST_RETRY_SECONDS = 0.25
"""Doubled from one attempt to the next, up to `LAST_RETRY_SECONDS`: a host that is gone is given up after 16 s."""
LAST_RETRY_SECONDS = 8.0

_WAITING = {"CONNECT_TIMEOUT_SECONDS": "10", "LOW_SPEED_TIME_SECONDS": "15", "LOW_SPEED_LIMIT_BYTES": "1"}
"""What `limit_waiting` sets where the environment says nothing."""

VENDOR = Path("/sys/class/dmi/id/sys_vendor")
"""Where Linux says who built the machine."""

Range = tuple[int, int | None]
"""First byte and the one after the last, None for the end; from a negative first byte on as in Python's slices."""


@dataclass(frozen=True, slots=True)
class Location:
    """Where a store is; keys are names of its files, such as frames/zarr.json."""

    root: str
    """The folder as given, or the URL without its login, its query and its last slash."""
    is_remote: bool = False
    query: str = field(default="", repr=False)
    """What follows the question mark of an http URL."""
    login: str = field(default="", repr=False)
    """What stands before the host of an http URL, with the @."""

    @classmethod
    def parse(cls, where: "str | Path | Location") -> "Location":
        """Read a path or a URL. Raises ParameterError for a URL of another scheme or without a host or bucket."""
        if isinstance(where, Location):
            return where
        match = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):(//?)(.*)", str(where), re.DOTALL)
        if match is None or (match[2] == "/" and not (isinstance(where, Path) and match[1] in DRIVERS)):
            return cls(str(Path(where)))
        scheme, slashes, rest = match[1].lower(), match[2], match[3]
        if slashes == "/":
            raise ParameterError(f"{where} is a path, but must be a str, because it is a URL")
        known = f"{', '.join(DRIVERS)} (a path has none)"
        check_name(DRIVERS, scheme, f"the scheme of {where}", known_in_words=known)
        query = login = ""
        if DRIVERS[scheme] == "http":
            rest, _, query = rest.partition("#")[0].partition("?")
            if found := re.match(r"[^/]*@", rest):
                login, rest = found[0], rest[found.end() :]
        rest = rest.rstrip("/")
        if not rest or rest.startswith("/"):
            what = "host" if DRIVERS[scheme] == "http" else "bucket"
            raise ParameterError(f"the URL is {scheme}://{rest}, but must name a {what}")
        return cls(f"{scheme}://{rest}", True, query, login)

    def __str__(self) -> str:
        return self.root

    @property
    def path(self) -> Path | None:
        """The folder; None for a URL."""
        return None if self.is_remote else Path(self.root)

    @property
    def name(self) -> str:
        """The last part: of s3://bucket/gait/casia-b.zarr it is casia-b.zarr; empty for a bucket or a host alone."""
        if self.is_remote:
            return self.root.partition("://")[2].partition("/")[2].rpartition("/")[2]
        return Path(self.root).name

    @property
    def parent(self) -> Self:
        """What the last part lies in."""
        parent = self.root.rpartition("/")[0] if self.is_remote else str(Path(self.root).parent)
        return replace(self, root=parent)

    def __truediv__(self, key: str) -> Self:
        return replace(self, root=f"{self.root}/{key}" if self.is_remote else str(Path(self.root) / key))

    def kvstore(self) -> dict[str, Any]:
        """tensorstore's specification of the key-value store of the files; its path ends in a slash."""
        if self.path is not None:
            return {"driver": "file", "path": f"{self.path.absolute()}/"}
        scheme, _, rest = self.root.partition("://")
        driver = DRIVERS[scheme]
        retries = {
            "max_retries": MAX_RETRIES,
            "initial_delay": f"{FIRST_RETRY_SECONDS}s",
            "max_delay": f"{LAST_RETRY_SECONDS}s",
        }
        spec = {"driver": driver, "context": {f"{driver}_request_retries": retries}}
        if driver == "http":
            return spec | {"base_url": f"{scheme}://{self.login}{rest}/{'?' if self.query else ''}{self.query}"}
        bucket, _, path = rest.partition("/")
        return spec | {"bucket": bucket, "path": f"{path}/" if path else ""} | (_s3() if driver == "s3" else {})

    def read(self, key: str, part: Range | None = None, *, max_bytes: int | None = None) -> bytes | None:
        """The bytes of a file, or those of the part that it has; None where there is no such file.

        Raises AttenGaitError, naming the file, when it cannot be read or has more than `max_bytes`.
        """
        return self.read_all([(key, part)], None if max_bytes is None else [max_bytes])[0]

    def read_all(
        self, wanted: Sequence[tuple[str, Range | None]], limits: Sequence[int] | None = None
    ) -> list[bytes | None]:
        """What `read` returns for each of some files, asked for all at once; `limits` are the most bytes of each."""
        most = [None] * len(wanted) if limits is None else limits
        if self.path is not None:
            return [
                _read_file(self.path / key, part, max_bytes)
                for (key, part), max_bytes in zip(wanted, most, strict=True)
            ]
        store = self._open()
        reads = [store.read(key, byte_range=slice(*part) if part else None) for key, part in wanted]
        wait, found = self.wait(self), []
        for (key, part), read, max_bytes in zip(wanted, reads, most, strict=True):
            try:
                result = wait.result(read, self / key)
            except (ValueError, OSError, RuntimeError) as error:
                if part is None or "OUT_OF_RANGE" not in str(error):
                    raise AttenGaitError(f"{self / key} {reason_of(error)}") from error
                # The file is shorter than the part.
                whole = self.read(key, max_bytes=max_bytes)
                found.append(None if whole is None else whole[slice(*part)])
            else:
                _check_bytes(self / key, len(result.value), max_bytes)
                found.append(bytes(result.value) if result.state == "value" else None)
        return found

    def wait(self, place: object, *, expected_bytes: int = 0) -> Wait:
        """A wait for requests to the server, of answers of so many bytes in all."""
        # A cloud's own servers send what they are asked for.
        is_trusted = not self.is_remote or self.kvstore()["driver"] != "http"
        return Wait(place, expected_bytes=expected_bytes, is_trusted=is_trusted)

    def has(self, files: Sequence[tuple[str, int]]) -> list[bool]:
        """Whether each of some files is there in full, by its size in bytes: behind a URL, at least of that size."""
        if self.path is not None:
            paths = [(self.path / key, num_bytes) for key, num_bytes in files]
            return [path.is_file() and path.stat().st_size == num_bytes for path, num_bytes in paths]
        lasts = self.read_all([(key, (num_bytes - 1, num_bytes)) for key, num_bytes in files])
        return [bool(last) for last in lasts]

    def lacks_bucket(self) -> bool:
        """Whether the bucket does not exist. A missing object alone does not say that."""
        spec = self.kvstore()
        if "bucket" not in spec:
            return False
        keys = use_tensorstore().KvStore.KeyRange("\0", "\1")
        try:
            self.wait(self).result(_open(json.dumps(spec | {"path": ""})).list(keys))
        except (ValueError, OSError, RuntimeError) as error:
            return "no such bucket" in reason_of(error)
        return False

    def check_writable(self) -> None:
        """Raise AttenGaitError if a URL of this kind can only be read."""
        if self.is_remote and self.kvstore()["driver"] == "http":
            raise AttenGaitError(f"{self} can only be read: write to a folder, an s3:// or a gs:// URL")

    def write(self, key: str, data: bytes) -> None:
        """Write an object behind a URL. A reader sees all of it or nothing.

        Raises AttenGaitError, naming the object, when that fails.
        """
        assert self.is_remote
        self.check_writable()
        try:
            self._open().write(key, data).result()
        except (ValueError, OSError, RuntimeError) as error:
            raise AttenGaitError(f"{self / key} {reason_of(error)}") from error

    def remove(self, keys: Sequence[str]) -> None:
        """Delete some objects behind a URL, as far as they are there; AttenGaitError when that fails."""
        assert self.is_remote
        store = self._open()
        deletions = [store.write(key, None) for key in keys]
        try:
            for deletion in deletions:
                deletion.result()
        except (ValueError, OSError, RuntimeError) as error:
            raise AttenGaitError(f"{self} {reason_of(error)}") from error

    def _open(self) -> Any:
        use_tensorstore()  # also where the store is open already, for processes that were forked
        try:
            return _open(json.dumps(self.kvstore()))
        except (ValueError, OSError, RuntimeError) as error:
            raise AttenGaitError(f"{self} {reason_of(error)}") from error


Where = str | Path | Location


def limit_waiting() -> None:
    """Have this process and its children give up a server that says nothing for 15 seconds.

    By default TensorStore waits for such a server until the request's deadline (attengait.store.waiting), and does not
    try again. It can be told only by environment variables
    (TENSORSTORE_CURL_CONNECT_TIMEOUT_SECONDS and others), read at its first use; those that are set already stay. The
    command line calls this at its start; call it in a program of your own that reads stores on servers.
    """
    for name, value in _WAITING.items():
        os.environ.setdefault(f"TENSORSTORE_CURL_{name}", value)


@lru_cache(maxsize=16)
def _open(spec: str) -> Any:
    """The key-value store of a specification; kept, as each finds its region, credentials and connections anew."""
    return use_tensorstore().KvStore.open(json.loads(spec)).result()


def use_tensorstore() -> Any:
    """The module tensorstore, for a process that may use it.

    A process that was forked from one that used it would be aborted: AttenGaitError instead.
    """
    global _used_by
    if _used_by is None:
        _used_by = os.getpid()
    elif _used_by != os.getpid():
        raise AttenGaitError(
            "this process was forked from one that had used TensorStore, which reads remote stores and does "
            'not survive that: start workers by spawning (DataLoader(..., multiprocessing_context="spawn"))'
        )
    import tensorstore

    return tensorstore


_used_by: int | None = None
"""The process that used tensorstore; processes forked from it inherit this."""


def _read_file(path: Path, part: Range | None, max_bytes: int | None) -> bytes | None:
    try:
        with open_regular(path) as file:
            size = file.seek(0, os.SEEK_END)
            start, stop, _ = slice(*(part or (0, None))).indices(size)
            _check_bytes(path, stop - start, max_bytes)
            file.seek(start)
            return file.read(max(0, stop - start))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise AttenGaitError(f"{path} cannot be read: {error.strerror}") from error


def _check_bytes(place: object, num_bytes: int, max_bytes: int | None) -> None:
    if max_bytes is not None and num_bytes > max_bytes:
        raise AttenGaitError(f"{place} has {num_bytes} bytes, but must have at most {max_bytes}")


def _s3() -> dict[str, Any]:
    """Endpoint, region and credentials as the environment has them."""
    spec: dict[str, Any] = {}
    if endpoint := os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL"):
        spec["endpoint"] = endpoint.rstrip("/")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    # Without an endpoint, tensorstore asks AWS for the bucket's region.
    if region or endpoint:
        spec["aws_region"] = region or "us-east-1"
    if os.environ.get("AWS_ACCESS_KEY_ID") and os.environ.get("AWS_SECRET_ACCESS_KEY"):
        spec["aws_credentials"] = {"type": "environment"}
    elif not _may_have_credentials():
        spec["aws_credentials"] = {"type": "anonymous"}
    return spec


def _may_have_credentials() -> bool:
    """Whether AWS's tools could find credentials here: in files, or as a role of the machine.

    If there are none, they must not be asked: they would ask for a role over the network, and print a warning.
    """
    roles = ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_ROLE_ARN")
    files = {"AWS_SHARED_CREDENTIALS_FILE": "credentials", "AWS_CONFIG_FILE": "config"}
    return (
        any(name in os.environ for name in roles)
        or any(Path(os.environ.get(name) or Path.home() / ".aws" / file).is_file() for name, file in files.items())
        or (VENDOR.is_file() and VENDOR.read_text(errors="replace").strip() == "Amazon EC2")
    )


def reason_of(error: Exception) -> str:
    """What tensorstore's error means, as the end of a sentence that begins with a URL."""
    # Of the URLs in it, which may hold secrets, the sentence begins with one.
    text = re.sub(r"Error (?:reading|writing|opening)\b.*\w+://\S+: |\w+://\S+", "", str(error).splitlines()[0])
    status = re.search(r"(?:HTTP code |http_response_code=')(\d+)", text)
    attempts = re.search(r"All (\d+) retry attempts failed: ", text)
    said = re.sub(r"^[A-Z_]+: |All \d+ retry attempts failed: |CURL error |^Unknown\b| ?\[.*", "", text)
    if status is not None:
        said = f"HTTP {status[1]}{': ' if said else ''}{said}"
        if status[1] in ("401", "403"):
            return f"is refused by the server ({said}): check its name and the credentials"
        if status[1] in ("301", "307"):
            return f"lies in another region ({said}): set AWS_REGION to that, or unset it"
        if status[1] == "404":
            return f"cannot be reached: there is no such bucket ({said})"
    if attempts is not None:
        return f"cannot be reached, the last of {int(attempts[1]) + 1} attempts ended so: {said}"
    return f"cannot be read or written: {said}"
