"""Clips are gathered bit for bit, whatever their size and place."""

from typing import Any

import numpy as np
import pytest

from attengait.kernels.chunks import gather as gathering
from attengait.kernels.chunks.gather import gather
from attengait.kernels.runtime.compile import find_compiler

pytestmark = pytest.mark.skipif(find_compiler() is None, reason="no C++ compiler (c++, g++ or clang++)")


@pytest.mark.parametrize("num_threads", [1, 2, 9])
@pytest.mark.parametrize("least_past_caches", [0, 10**9])
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (3, 5, 1, 1), (4, 4, 4, 1), (7, 6, 5, 3), (30, 64, 64, 3)])
def test_clips_are_gathered_in_their_order(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], least_past_caches: int, num_threads: int
) -> None:
    monkeypatch.setattr(gathering, "PAST_CACHES_BYTES", least_past_caches)
    frames = np.random.default_rng(0).integers(0, 256, (100, *shape[1:]), np.uint8)
    firsts = np.random.default_rng(1).integers(0, 101 - shape[0], 5)
    found: Any = gather([frames[first : first + shape[0]] for first in firsts], num_threads)
    assert np.array_equal(found, [frames[first : first + shape[0]] for first in firsts])
    assert found.flags.owndata


def test_clips_of_different_lengths_are_not_gathered() -> None:
    frames = np.zeros((9, 2, 2, 1), np.uint8)
    with pytest.raises(AssertionError):
        gather([frames[:3], frames[:4]], 1)
