"""Compiles C++ sources to shared libraries at first use, for this machine's processor.

A library is kept in the user's cache folder, or in a temporary folder if the cache cannot be written. Its name is a
digest of everything that goes into it: the source, the files that it includes, the flags, the compiler and the
processor. So a wrong library is never used, not even if the source changes or if several machines share the folder.
Several processes may build at the same time: each makes its own library, and the last one stays.
"""

import contextlib
import ctypes
import errno
import functools
import hashlib
import logging
import os
import platform
import shlex
import shutil
import stat
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from attengait.errors import AttenGaitError

_BUILD_PREFIX = "build-"
_COMPILERS = ("c++", "g++", "clang++")
NATIVE = "-mcpu=native" if platform.machine() in ("arm64", "aarch64") else "-march=native"
"""The flag for code that uses all instructions of this machine's processor."""
_LIBRARY_FLAGS = ("-std=c++17", "-shared", "-fPIC")
SLOW_COMPILE_SECONDS = 1.0
"""A compilation that takes longer is said."""

_log = logging.getLogger(__name__)


def find_compiler() -> str | None:
    """Return the C++ compiler of this machine, as one would type it in a shell, or None.

    If $CXX is set, only that one counts. Otherwise it is the first of c++, g++ and clang++ that is found.
    """
    named = os.environ.get("CXX", "").strip()
    for command in (named,) if named else _COMPILERS:
        with contextlib.suppress(ValueError):  # a quotation mark left open
            if shutil.which(shlex.split(command)[0]):
                return command
    return None


def build(source: Path, *, flags: Sequence[str] = (), depends: Sequence[Path] = ()) -> Path:
    """Return the shared library of a C++ source. It is compiled, unless the same library is in the cache.

    `flags` go before the source on the command line; `depends` are the files that it includes. The cache is
    `$XDG_CACHE_HOME/attengait`, by default `~/.cache/attengait`. If that cannot be written, it is a temporary folder
    that belongs to the user. Raises AttenGaitError when there is no compiler, when the source does not compile (with
    the compiler's first error), or when neither folder can be written.
    """
    compiler = find_compiler()
    if compiler is None:
        named = os.environ.get("CXX", "").strip()
        found = f"CXX={named} was not found" if named else f"none of {', '.join(_COMPILERS)} was found"
        raise AttenGaitError(f"{source.name} needs a C++ compiler, and {found}")
    command = [*shlex.split(compiler), *_LIBRARY_FLAGS, *flags]
    name = f"{source.stem}-{_digest(command, (source, *depends))}.so"
    try:
        with contextlib.suppress(OSError, RuntimeError):  # the latter for a user without a home
            return _build_in(_cache_folder(), name, command, source)
        return _build_in(_temporary_folder(), name, command, source)
    except OSError as error:
        raise AttenGaitError(
            f"cannot keep the compiled {source.name}: neither the cache folder nor a temporary one can be written "
            f"({error.strerror}); name a folder with XDG_CACHE_HOME"
        ) from error


def _build_in(folder: Path, name: str, command: list[str], source: Path) -> Path:
    library = folder / name
    if not library.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _remove_old_builds(folder)
        with tempfile.TemporaryDirectory(prefix=_BUILD_PREFIX, dir=folder) as building:
            made = Path(building) / name
            with said_when_slow(f"{source.name} for this processor; {folder} keeps the result for later runs"):
                _compile([*command, str(source), "-o", str(made)], source)
            _sync(made)
            made.replace(library)
    return library


def _remove_old_builds(folder: Path) -> None:
    """Remove what compilers that were killed left. One that is at work began less than an hour ago."""
    for left in folder.glob(f"{_BUILD_PREFIX}*"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > 3600:
                shutil.rmtree(left, ignore_errors=True)


@contextlib.contextmanager
def said_when_slow(what: str) -> Iterator[None]:
    """Log what is compiled, and what becomes of it, when that takes longer than SLOW_COMPILE_SECONDS; once for all
    that have the same words."""
    timer = threading.Timer(SLOW_COMPILE_SECONDS, _say, (what,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@functools.cache
def _say(what: str) -> None:
    # A warning, as worker processes show nothing less.
    _log.warning("compiling %s", what)


def load(library: Path) -> ctypes.CDLL:
    """Load what `build` returned. Raises AttenGaitError if the system refuses."""
    try:
        return ctypes.CDLL(str(library))
    except OSError as error:
        raise AttenGaitError(f"the compiled code cannot be loaded: {error}") from error


def _compile(command: list[str], source: Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        complaints = [line for line in lines if "error" in line.lower()] or lines or [f"status {done.returncode}"]
        raise AttenGaitError(f"{command[0]} could not compile {source.name}: {complaints[0]}")


def _sync(path: Path) -> None:
    """Write a file's bytes to the disk before the file gets its name, so that a crash cannot leave an empty library."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _cache_folder() -> Path:
    named = os.environ.get("XDG_CACHE_HOME", "")
    # The convention: a relative path counts as unset.
    return (Path(named) if os.path.isabs(named) else Path.home() / ".cache") / "attengait"


def _temporary_folder() -> Path:
    """A folder that only this user can write to, because the code in it is run. Raises OSError if there is none."""
    folder = Path(tempfile.gettempdir()) / f"attengait-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
    return folder


def _digest(command: list[str], files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for part in (*command, _version(command[0]), _processor()):
        digest.update(part.encode() + b"\0")
    for path in files:
        digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:20]


@functools.cache
def _version(compiler: str) -> str:
    try:
        return subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False).stdout
    except OSError as error:
        raise AttenGaitError(f"the compiler {compiler} cannot be run: {error.strerror}") from error


@functools.cache
def _processor() -> str:
    """The processor's model and features: they decide which instructions `-march=native` allows."""
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:
        lines = []
    telling = (
        "model name",
        "cpu family",
        "model",
        "stepping",
        "flags",
        "Features",
        "CPU implementer",
        "CPU part",
        "isa",
    )
    known = [line for line in lines if line.split(":")[0].strip() in telling]
    return "\n".join([platform.machine(), *known])
