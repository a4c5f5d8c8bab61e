"""Where the compiled code of patch_norm can be used, and that it stays within its arrays."""

import pytest
from sanitised import run_sanitised

from attengait.kernels.patch_norm import cpu
from attengait.kernels.patch_norm.maps import Maps
from attengait.kernels.runtime.compile import find_compiler

pytestmark = pytest.mark.skipif(find_compiler() is None, reason="there is no C++ compiler")


def fits(width: int, features: int, format: str = "float32") -> bool:
    return cpu.fits(Maps(frames=2, height=5, width=width, features=features, format=format, pool=False))


def test_it_says_which_maps_it_fits() -> None:
    assert [features for features in range(1, 70) if fits(64, features)] == [4, 8, 16, 32, 64]
    assert not fits(3, 4)  # a row of 12 values fills no vector of 8 or 16
    assert fits(64, 8, "bfloat16")
    assert not fits(64, 8, "float16")


def test_without_a_compiler_it_fits_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    cpu._lanes.cache_clear()
    try:
        assert not fits(64, 32)
    finally:
        cpu._lanes.cache_clear()


def test_sanitizers_find_nothing() -> None:
    done = run_sanitised("run_patch_norm_sanitised.py")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["4", "16", "64"]
