"""The fuzzers' entry points read valid files, and refuse damaged ones with an error of this program."""

import contextlib
from pathlib import Path

import numpy as np
import pytest
from fuzz_targets import TARGETS

from attengait.errors import AttenGaitError


@pytest.mark.parametrize("name", TARGETS)
def test_valid_and_damaged_files_end_well(name: str, tmp_path: Path) -> None:
    target, random = TARGETS[name], np.random.default_rng(0)
    (tmp_path / "made").mkdir()
    seeds = target.seeds(tmp_path / "made")
    assert seeds
    tries = [*seeds, b"", seeds[0][: len(seeds[0]) // 2]]
    for _ in range(20):
        damaged = bytearray(seeds[random.integers(len(seeds))])
        damaged[random.integers(len(damaged))] ^= 1 << int(random.integers(8))
        tries.append(bytes(damaged))
    for i, content in enumerate(tries):
        folder = tmp_path / str(i)
        folder.mkdir()
        is_sound = i < len(seeds)
        with contextlib.nullcontext() if is_sound else contextlib.suppress(AttenGaitError):
            target.run(folder, content)
