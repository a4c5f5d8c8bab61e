"""What torch computes in is set where work runs and set back; what a device cannot do is refused."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
import torch
from torch.nn import functional

from attengait.errors import AttenGaitError, ParameterError
from attengait.model.config import ModelConfig
from attengait.model.net import AttenGait
from attengait.model.precision import autocast, computing, resolve_device

CPU = torch.device("cpu")
backends: Any = torch.backends
OPERATIONS = {
    "cuDNN convolutions": backends.cudnn.conv,
    "cuDNN recurrent": backends.cudnn.rnn,
    "cuBLAS": backends.cuda.matmul,
    "oneDNN convolutions": backends.mkldnn.conv,
    "oneDNN recurrent": backends.mkldnn.rnn,
    "oneDNN products": backends.mkldnn.matmul,
}


def state() -> dict[str, object]:
    return {
        **{name: operation.fp32_precision for name, operation in OPERATIONS.items()},
        "old names": (backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()),
        "deterministic": (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
            backends.cudnn.deterministic,
            backends.cudnn.benchmark,
        ),
        "cuBLAS workspace": os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
    }


@pytest.fixture(autouse=True)
def _flags_are_left_as_they_were() -> Iterator[None]:
    before = state()
    yield
    torch.use_deterministic_algorithms(False)
    backends.cudnn.allow_tf32 = True
    torch.set_float32_matmul_precision("highest")
    backends.mkldnn.matmul.fp32_precision = "none"
    backends.cuda.matmul.fp32_precision = "none"
    assert state() == before


def leave() -> None:
    """As torch begins: tf32 in the convolutions of a GPU, and nowhere else."""


def allow_tf32_by_the_old_names() -> None:
    torch.set_float32_matmul_precision("medium")


def forbid_tf32_by_the_old_names() -> None:
    backends.cudnn.allow_tf32 = False


def repeat_with_warnings() -> None:
    torch.use_deterministic_algorithms(True, warn_only=True)


@pytest.mark.parametrize(
    "caller", [leave, allow_tf32_by_the_old_names, forbid_tf32_by_the_old_names, repeat_with_warnings]
)
@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16", "fp16"])
def test_float32_is_float32_unless_tf32_is_asked_for_and_all_is_set_back(
    caller: Callable[[], None], precision: str
) -> None:
    caller()
    before = state()
    is_tf32 = precision == "tf32"
    with computing(CPU, precision):
        now = state()
        wanted = "tf32" if is_tf32 else "ieee"
        assert [now[name] for name in OPERATIONS] == [*[wanted] * 3, *["ieee"] * 3]
        assert now["old names"] == (is_tf32, "high" if is_tf32 else "highest")
    assert state() == before


def test_flags_under_new_names_are_set_back_too() -> None:
    backends.cuda.matmul.fp32_precision = (
        "tf32"  # the old name of this flag now says something else, and cannot be read
    )
    with computing(CPU, "fp32"):
        assert backends.cuda.matmul.fp32_precision == "ieee"
    assert backends.cuda.matmul.fp32_precision == "tf32"


@pytest.mark.parametrize(("config", "within"), [(None, ":4096:8"), (":16:8", ":16:8"), (":0:0", ":4096:8")])
def test_deterministic_is_set_and_set_back_also_after_an_error(
    monkeypatch: pytest.MonkeyPatch, config: str | None, within: str
) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    if config is not None:
        monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", config)
    before = state()
    with computing(CPU, "fp32"):
        assert state()["deterministic"] == before["deterministic"]
    seen = {}
    with suppress(KeyError), computing(CPU, "fp32", deterministic=True):
        seen = state()
        raise KeyError
    assert (seen["deterministic"], seen["cuBLAS workspace"]) == ((True, False, True, False), within)
    assert state() == before


def test_what_torch_cannot_repeat_is_one_sentence() -> None:
    pooled, indices = functional.max_pool2d(torch.rand(1, 1, 4, 4), 2, return_indices=True)
    with (
        pytest.raises(AttenGaitError, match=r"^deterministic is true, but must be false on this device: .* max_unpool"),
        computing(CPU, "fp32", deterministic=True),
    ):
        functional.max_unpool2d(pooled, indices, 2)


def test_a_cublas_that_was_used_before_is_one_sentence() -> None:
    # What torch says then, which only a GPU makes it say.
    text = "Deterministic behavior was enabled, but this operation uses CuBLAS: CUBLAS_WORKSPACE_CONFIG=:4096:8"
    with (
        pytest.raises(
            AttenGaitError, match=r"which called cuBLAS before .* CUBLAS_WORKSPACE_CONFIG: set it to :4096:8"
        ),
        computing(CPU, "fp32", deterministic=True),
    ):
        raise RuntimeError(text)
    with pytest.raises(RuntimeError, match=r"^another$"), computing(CPU, "fp32", deterministic=True):
        raise RuntimeError("another")


@pytest.mark.parametrize(("precision", "kind"), [("fp32", None), ("tf32", None), ("bf16", torch.bfloat16)])
def test_only_half_precision_is_autocast(precision: str, kind: torch.dtype | None) -> None:
    with autocast(CPU, precision):
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == (kind or torch.float32)


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """GPU 0 is an older one. The list hears which is made the current one."""
    heard: list[str] = []

    @contextmanager
    def on(device: torch.device) -> Iterator[None]:
        heard.append(str(device))
        yield
        heard.append("back")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: ((7, 5), (9, 0))[device.index])
    monkeypatch.setattr(torch.cuda, "device", on)
    return heard


def test_the_device_is_the_current_one_while_it_computes(two_gpus: list[str]) -> None:
    with computing(torch.device("cuda:1"), "fp32"):
        assert two_gpus == ["cuda:1"]
    assert two_gpus == ["cuda:1", "back"]
    with computing(CPU, "fp32"):
        assert two_gpus == ["cuda:1", "back"]


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_a_gpu_without_a_number_is_the_current_one(device: str) -> None:
    assert resolve_device(device, "fp32") == (torch.device("cuda:1"), "fp32")


@pytest.mark.usefixtures("two_gpus")
def test_precisions_are_those_that_the_device_computes_in() -> None:
    assert resolve_device("cuda:1", "tf32")[1] == "tf32"
    assert [resolve_device(device, "auto")[1] for device in ("cuda:0", "cuda:1")] == ["fp32", "bf16"]
    for device in ("cpu", "cuda:0"):
        sentence = f"precision is 'tf32', but must be auto, fp32, bf16 or fp16 on the device {device}: only NVIDIA GPUs"
        with pytest.raises(ParameterError, match=sentence):
            resolve_device(device, "tf32")


@pytest.mark.gpu
def test_on_a_gpu_fp32_is_exact_and_tf32_is_not() -> None:
    device, _ = resolve_device("cuda", "fp32")
    generator = torch.Generator().manual_seed(0)
    pictures, kernels = (torch.randn(shape, generator=generator) for shape in ((4, 64, 16, 16), (64, 64, 3, 3)))
    exact = functional.conv2d(pictures.double(), kernels.double(), padding=1)
    matrix = pictures.flatten(1)
    exact_product = matrix.double() @ matrix.double().T
    errors = {}
    for precision in ("fp32", "tf32"):
        with computing(device, precision):
            made = functional.conv2d(pictures.to(device), kernels.to(device), padding=1)
            product = matrix.to(device) @ matrix.to(device).T
        differences = ((made.cpu() - exact) / exact.std(), (product.cpu() - exact_product) / exact_product.std())
        errors[precision] = [float(each.abs().max()) for each in differences]
    assert max(errors["fp32"]) < 2e-5  # sums of 576 and 16,384 products in float32
    if torch.cuda.get_device_capability(device) >= (8, 0):
        assert min(errors["tf32"]) > 1e-4


def test_a_network_embeds_in_float32_itself_whatever_the_process_allows() -> None:
    allow_tf32_by_the_old_names()
    model, seen = AttenGait(ModelConfig()), []
    model.backbone.convolutions[0].register_forward_hook(lambda *_: seen.append(backends.cudnn.conv.fp32_precision))
    before = state()
    model.embed(torch.zeros(16, 64, 64, 3, dtype=torch.uint8))
    assert seen == ["ieee"]
    assert state() == before
