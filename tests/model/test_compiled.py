"""Where our kernels cannot be used on a GPU, it is said once, with the reason."""

import logging

import pytest

from attengait.errors import AttenGaitError
from attengait.model import compiled


@pytest.mark.parametrize("where", ["missing", "refused"])
def test_a_gpu_without_our_kernels_is_said_once(
    where: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(index: int) -> None:
        raise AttenGaitError("CuPy cannot use the GPU: it is too old")

    monkeypatch.setattr(compiled, "cuda_missing", lambda: "it needs CuPy: ..." if where == "missing" else None)
    monkeypatch.setattr(compiled, "CudaDevice", refuse)
    compiled._gpu.cache_clear()
    try:
        with caplog.at_level(logging.WARNING, "attengait"):
            assert compiled._gpu(0) is None
            assert compiled._gpu(0) is None
    finally:
        compiled._gpu.cache_clear()
    (record,) = caplog.records
    assert ("it needs CuPy" if where == "missing" else "too old") in record.getMessage()
    assert "slower" in record.getMessage()
