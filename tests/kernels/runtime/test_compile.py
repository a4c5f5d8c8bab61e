"""Compiled sources: built once, never stale, never another machine's, and failing in one sentence."""

import ctypes
import logging
import os
import shlex
import shutil
import stat
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from attengait.errors import AttenGaitError
from attengait.kernels.runtime import compile as compiling
from attengait.kernels.runtime.compile import build, find_compiler

needs_compiler = pytest.mark.skipif(find_compiler() is None, reason="no C++ compiler (c++, g++ or clang++)")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "attengait"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "answer.h").write_text("#define ANSWER 42\n")
    path = tmp_path / "answer.cpp"
    path.write_text('#include "answer.h"\n#ifndef PLUS\n#define PLUS 0\n#endif\n')
    with path.open("a") as file:
        file.write('extern "C" int answer() { return ANSWER + PLUS; }\n')
    return path


def answer(library: Path) -> int:
    return int(ctypes.CDLL(str(library)).answer())


def counting_compiler(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have $CXX be a program that notes each compilation in the file returned."""
    real, log, script = find_compiler(), folder / "log", folder / "my-c++"
    script.write_text(f'#!/bin/sh\n[ "$1" = --version ] || echo "$@" >> {shlex.quote(str(log))}\nexec {real} "$@"\n')
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    log.touch()
    monkeypatch.setenv("CXX", f"{shlex.quote(str(script))} -O1")
    return log


@needs_compiler
def test_a_slow_compilation_is_said_once_and_a_library_that_is_there_is_not(
    source: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    said = threading.Event()
    logging.getLogger(compiling.__name__).addFilter(hear := lambda record: said.set() or True)
    compile_source = compiling._compile

    def compile_until_it_is_said(command: list[str], source: Path) -> None:
        assert said.wait(60)
        compile_source(command, source)

    monkeypatch.setattr(compiling, "SLOW_COMPILE_SECONDS", 0)
    monkeypatch.setattr(compiling, "_compile", compile_until_it_is_said)
    try:
        assert build(source) == build(source)
        build(source, flags=["-DPLUS=1"])
    finally:
        logging.getLogger(compiling.__name__).removeFilter(hear)
    sentence = f"compiling answer.cpp for this processor; {cache} keeps the result for later runs"
    assert [record.getMessage() for record in caplog.records] == [sentence]


@needs_compiler
def test_a_quick_compilation_says_nothing(
    source: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(compiling, "SLOW_COMPILE_SECONDS", 600)
    build(source)
    assert caplog.records == []


@needs_compiler
def test_a_source_is_compiled_once(source: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = counting_compiler(tmp_path, monkeypatch)
    first, second = build(source), build(source)
    assert answer(first) == 42
    assert first == second
    assert first.parent == cache
    assert len(log.read_text().splitlines()) == 1
    assert log.read_text().split()[0] == "-O1"  # $CXX may hold arguments


@needs_compiler
def test_whatever_changes_the_result_gives_another_library(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    header = tmp_path / "answer.h"
    libraries = [build(source, depends=[header])]
    libraries.append(build(source, depends=[header], flags=["-DPLUS=1"]))
    assert answer(libraries[-1]) == 43
    header.write_text("#define ANSWER 7\n")
    libraries.append(build(source, depends=[header]))
    assert answer(libraries[-1]) == 7
    source.write_text(source.read_text() + "// longer\n")
    libraries.append(build(source, depends=[header]))
    monkeypatch.setattr(compiling, "_processor", lambda: "another processor")
    libraries.append(build(source, depends=[header]))
    monkeypatch.setattr(compiling, "_version", lambda compiler: "another version")
    libraries.append(build(source, depends=[header]))
    assert len(set(libraries)) == len(libraries)


@needs_compiler
def test_many_may_build_at_once_and_nothing_else_is_left(source: Path, cache: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        libraries = set(pool.map(lambda _: build(source), range(4)))
    assert len(libraries) == 1
    assert answer(libraries.pop()) == 42
    assert [path.suffix for path in cache.iterdir()] == [".so"]


@needs_compiler
def test_what_does_not_compile_is_said_in_the_compilers_words(source: Path, cache: Path) -> None:
    source.write_text("int answer() { return nonsense; }\n")
    with pytest.raises(AttenGaitError, match=r"could not compile answer\.cpp: .*nonsense") as caught:
        build(source)
    assert "\n" not in str(caught.value)
    assert list(cache.iterdir()) == []


def test_without_a_compiler_one_sentence_says_so(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.delenv("CXX", raising=False)
    assert find_compiler() is None
    with pytest.raises(AttenGaitError, match=r"^answer\.cpp needs a C\+\+ compiler, and none of c\+\+, g\+\+, clang"):
        build(source)


def test_a_compiler_that_is_named_is_the_only_one_taken(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-c++ -O1")
    assert find_compiler() is None
    with pytest.raises(AttenGaitError, match=r"CXX=no-such-c\+\+ -O1 was not found"):
        build(source)


def test_a_compiler_named_with_an_open_quotation_mark_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", '"g++')
    assert find_compiler() is None


def test_a_compiler_that_cannot_be_run_is_one_sentence(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "c++"
    script.write_text("no program")
    script.chmod(0o755)
    monkeypatch.setenv("CXX", shlex.quote(str(script)))
    with pytest.raises(AttenGaitError, match=r"the compiler .+/c\+\+ cannot be run: "):
        build(source)


@pytest.fixture
def temporary(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that is taken when the cache cannot be written, which it cannot."""
    cache.parent.mkdir()
    cache.write_text("a file where the folder should be")
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder / f"attengait-{os.getuid()}"


@needs_compiler
def test_where_the_cache_cannot_be_written_a_temporary_folder_is_taken(
    source: Path, tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = counting_compiler(tmp_path, monkeypatch)
    first, second = build(source), build(source)
    assert answer(first) == 42
    assert first == second
    assert first.parent == temporary
    assert len(log.read_text().splitlines()) == 1
    assert stat.S_IMODE(temporary.stat().st_mode) == 0o700


@needs_compiler
def test_a_user_without_a_home_takes_a_temporary_folder_too(
    source: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", no_home)
    assert build(source).parent == temporary


@needs_compiler
@pytest.mark.parametrize("spoil", [lambda path: path.write_text(""), lambda path: path.mkdir(), Path.symlink_to])
def test_a_temporary_folder_that_others_may_write_to_is_not_taken(
    source: Path, temporary: Path, spoil: Callable[..., None]
) -> None:
    if spoil is Path.symlink_to:
        temporary.symlink_to(temporary.parent)
    else:
        spoil(temporary)
        temporary.chmod(0o777)
    with pytest.raises(
        AttenGaitError, match=r"cannot keep the compiled answer\.cpp: neither .*XDG_CACHE_HOME"
    ) as caught:
        build(source)
    assert "\n" not in str(caught.value)


def test_what_a_killed_compiler_left_is_removed_an_hour_later(source: Path, cache: Path) -> None:
    left, busy, foreign = cache / "build-left", cache / "build-busy", cache / "built-by-somebody"
    for folder in (left, busy, foreign):
        folder.mkdir(parents=True)
        (folder / "a.so").write_bytes(b"half")
    for folder in (left, foreign):
        os.utime(folder, (1, 1))
    build(source)
    assert not left.exists()
    assert busy.exists()
    assert foreign.exists()
