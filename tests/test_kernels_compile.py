"""Compiled sources: built once, never stale, never another machine's, and failing in one sentence."""

import ctypes
import shutil
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from attengait.errors import AttenGaitError
from attengait.kernels import compile as compiling
from attengait.kernels.compile import build, find_compiler

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
    script.write_text(f'#!/bin/sh\n[ "$1" = --version ] || echo "$@" >> {log}\nexec {real} "$@"\n')
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    log.touch()
    monkeypatch.setenv("CXX", f"{script} -O1")
    return log


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


@needs_compiler
def test_a_cache_that_cannot_be_written_is_one_sentence(source: Path, cache: Path) -> None:
    cache.parent.mkdir()
    cache.write_text("a file where the folder should be")
    with pytest.raises(AttenGaitError, match=r"cannot keep the compiled answer\.cpp in "):
        build(source)
