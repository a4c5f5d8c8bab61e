"""Where the compiled code of the windows can be used, and that it stays within its arrays."""

import pytest
from sanitised import run_sanitised

from attengait.kernels.runtime.compile import find_compiler
from attengait.kernels.windows import cpu
from attengait.kernels.windows.clips import Clips

pytestmark = pytest.mark.skipif(find_compiler() is None, reason="there is no C++ compiler")


def fits(features: int, format: str = "float32") -> bool:
    return cpu.fits(Clips(clips=2, frames=16, features=features, format=format))


def test_it_says_which_clips_it_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    assert fits(32)
    assert fits(32, "bfloat16")
    assert not fits(32, "float16")
    assert not fits(6)
    monkeypatch.setenv("CXX", "no-such-compiler")
    cpu._lanes.cache_clear()
    try:
        assert not fits(32)
    finally:
        cpu._lanes.cache_clear()


def test_sanitizers_find_nothing() -> None:
    done = run_sanitised("run_windows_sanitised.py")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["16", "17"]
