"""What a profiler looks at: each flow kernel, and patch_norm with its gradient."""

from collections.abc import Sequence

import pytest
import torch

from attengait.benchmarks import kernels_once
from attengait.kernels.runtime.compile import find_compiler
from attengait.kernels.runtime.launch import HostDevice
from attengait.model import patch_norm


def test_every_flow_kernel_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    if find_compiler() is None:
        pytest.skip("no C++ compiler to compile the kernels with")
    launched = []

    class Noting(HostDevice):
        def launch(self, source: str, kernel: str, grid: Sequence[int], *rest: object) -> None:
            launched.append(kernel)
            super().launch(source, kernel, grid, *rest)

    kernels_once.run_flow(Noting(), 1, width=40, height=36)
    assert set(launched) == {"shrink", "expand", "set_up", "solve"}


def test_patch_norm_is_run_with_its_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    original = patch_norm.patch_norm

    def noting(z: torch.Tensor, *rest: torch.Tensor, pool: bool) -> torch.Tensor:
        z.register_hook(lambda gradient: seen.append((pool, gradient.shape)))
        return original(z, *rest, pool=pool)

    monkeypatch.setattr(kernels_once, "patch_norm", noting)
    kernels_once.run_patch_norm(torch.device("cpu"), 1)
    assert seen == [(pool, (1, 64, 64, 32)) for pool in (False, True)]


@pytest.mark.gpu
def test_all_of_it_runs_on_a_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    kernels_once.main()
    assert "done" in capsys.readouterr().out
