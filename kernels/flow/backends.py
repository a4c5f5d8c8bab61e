"""Dense optical flow between frames: a small registry of backends.

Frames are uint8 [H, W] grey pictures of one size. Flow is float32 [H, W, 2], (dx, dy) in pixels per frame: what is at
(x, y) in the first frame of a pair is at (x + dx, y + dy) in the second.

OpenCV's backend is in this file. Each other backend has its own module, which is imported at the first use. The module
has a class that is made from `FarnebackParameters`, and a function `missing`. If the backend is not Farneback's method,
it has other parameters: the module then has a function `recorded_parameters`, too.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import Any, Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from attengait.errors import AttenGaitError, ParameterError, require
from attengait.kernels.pictures.encode import ENCODINGS, Picture, check_encoding, encode
from attengait.system.lookup import check_name, look_up

Gray = NDArray[np.uint8]
Flow = NDArray[np.float32]
Window = Literal["box", "gaussian"]

LEAST_SIDE_PX = 10
"""Smallest height and width of a frame. For smaller frames the weights at the borders are not defined."""
LEAST_POLY_SIGMA_PX = 0.2
"""Smallest poly_sigma. Below it, a pixel's neighbours have hardly any weight, and OpenCV finds no motion."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FarnebackParameters:
    """Parameters of Farneback's method, named as in `cv2.calcOpticalFlowFarneback`; defaults as published."""

    pyr_scale: float = 0.5
    """Size of a pyramid level over that of the next larger one."""
    levels: int = 3
    """Levels below the full resolution; fewer if a picture would become smaller than 32 pixels."""
    winsize: int = 15
    """Side of the averaging window, in pixels."""
    iterations: int = 3
    """Updates of the flow at each level."""
    poly_n: int = 5
    """Pixels on each side of a pixel that its polynomial is fitted to."""
    poly_sigma: float = 1.2
    """Standard deviation of that fit's weights, in pixels."""
    window: Window = "box"
    """Weights of the averaging window: equal, or a Gaussian's (`cv2.OPTFLOW_FARNEBACK_GAUSSIAN`)."""

    def __post_init__(self) -> None:
        for name, least in (("levels", 0), ("winsize", 2), ("iterations", 1), ("poly_n", 1)):
            value = getattr(self, name)
            is_accepted = isinstance(value, int) and not isinstance(value, bool) and value >= least
            require(is_accepted, name, value, f"a whole number of at least {least}")
        is_accepted = _is_real(self.pyr_scale) and 0 < self.pyr_scale < 1
        require(is_accepted, "pyr_scale", self.pyr_scale, "above 0 and below 1")
        is_accepted = _is_real(self.poly_sigma) and LEAST_POLY_SIGMA_PX <= self.poly_sigma < math.inf
        require(is_accepted, "poly_sigma", self.poly_sigma, f"a number of at least {LEAST_POLY_SIGMA_PX}")
        check_name(get_args(Window), self.window, "window")


class FlowBackend(ABC):
    """Computes the flow of many pairs of frames, and the flow images made from it."""

    @abstractmethod
    def flows(self, grays: Sequence[Gray], pairs: Sequence[tuple[int, int]]) -> Iterator[Flow]:
        """Yield one flow, float32 [H, W, 2] in pixels per frame, for each pair of indices into `grays`.

        `grays` are uint8 [H, W] of one size. The backend does not change a flow after it has yielded it.
        """

    def pictures(
        self,
        grays: Sequence[Gray],
        pairs: Sequence[tuple[int, int]],
        silhouettes: Sequence[Picture],
        encoding: str,
        size: int,
    ) -> Picture:
        """Return the flow image of each pair, uint8 [P, size, size, C], as `encode.encode` makes it from the flow.

        `silhouettes` are uint8 [H, W] and not empty: for each pair the silhouette of its second frame. A backend may
        replace this method by a faster one. Raises ParameterError for an unknown encoding.
        """
        check_encoding(encoding)
        pictures = np.empty((len(pairs), size, size, ENCODINGS[encoding].channels), np.uint8)
        for i, flow in enumerate(self.flows(grays, pairs)):
            pictures[i] = encode(flow, silhouettes[i], encoding, size)
        return pictures

    def begin(
        self,
        grays: Sequence[Gray],
        pairs: Sequence[tuple[int, int]],
        silhouettes: Sequence[Picture],
        encoding: str,
        size: int,
    ) -> Callable[[], Picture]:
        """Start on what `pictures` returns, and return what waits for it and returns it.

        Until then `grays` and `silhouettes` must not change. A backend whose device works on its own may replace this
        method, so that the caller prepares the next pairs meanwhile. Raises ParameterError for an unknown encoding.
        """
        made = self.pictures(grays, pairs, silhouettes, encoding, size)
        return lambda: made


class OpenCVFlow(FlowBackend):
    """Farneback's method by OpenCV on the CPU (`cv2.calcOpticalFlowFarneback`)."""

    def __init__(self, parameters: FarnebackParameters) -> None:
        self._parameters = parameters

    def flows(self, grays: Sequence[Gray], pairs: Sequence[tuple[int, int]]) -> Iterator[Flow]:
        """Yield the pairs' flows one by one; only one is in memory at a time."""
        p = self._parameters
        flags = cv2.OPTFLOW_FARNEBACK_GAUSSIAN if p.window == "gaussian" else 0
        for first, second in pairs:
            yield cv2.calcOpticalFlowFarneback(
                grays[first],
                grays[second],
                None,
                p.pyr_scale,
                p.levels,
                p.winsize,
                p.iterations,
                p.poly_n,
                p.poly_sigma,
                flags,
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Backend:
    """One way to compute flow."""

    needs: str
    """What it needs, such as "a CUDA GPU"."""
    missing: Callable[[], str | None]
    """Returns None if it can be used, else one sentence that says why not. Quick: nothing is compiled."""
    make: Callable[[FarnebackParameters], FlowBackend]
    """Makes it; raises ParameterError for parameters that it does not support."""
    own_parameters: Callable[[], dict[str, Any]] | None = None
    """The parameters that decide its flow, if it is not Farneback's method; else None."""
    packages: tuple[str, ...] = ()
    """Packages whose versions may change its flow: how their names begin."""


def _in_module(
    module: str, class_name: str, *, needs: str, packages: tuple[str, ...] = (), is_farneback: bool = True
) -> Backend:
    """A backend that lives in `attengait.kernels.MODULE`."""

    def load() -> Any:
        return import_module(f"attengait.kernels.{module}")

    def missing() -> str | None:
        sentence: str | None = load().missing()
        return sentence

    def make(parameters: FarnebackParameters) -> FlowBackend:
        backend: FlowBackend = getattr(load(), class_name)(parameters)
        return backend

    def own_parameters() -> dict[str, Any]:
        parameters: dict[str, Any] = load().recorded_parameters()
        return parameters

    return Backend(
        needs=needs,
        missing=missing,
        make=make,
        own_parameters=None if is_farneback else own_parameters,
        packages=packages,
    )


BACKENDS: dict[str, Backend] = {
    "opencv": Backend(needs="nothing but the CPU", missing=lambda: None, make=OpenCVFlow),
    "cpu": _in_module("farneback.cpu", "CpuFlow", needs="a C++ compiler"),
    "cuda": _in_module("farneback.cuda", "CudaFlow", needs="an NVIDIA GPU and CuPy", packages=("cupy",)),
    "opencv-cuda": _in_module(
        "flow.opencv_cuda", "OpenCVCudaFlow", needs="an NVIDIA GPU and an OpenCV built with CUDA"
    ),
    "nvof": _in_module(
        "flow.nvof",
        "HardwareFlow",
        needs="an NVIDIA GPU with optical flow hardware (Turing or later) and DALI",
        packages=("nvidia-dali",),
        is_farneback=False,
    ),
}
"""Every flow backend by its name."""

AUTO = "auto"
AUTO_ORDER = ("cuda", "cpu", "opencv")
"""`auto` takes the first of these that can be used."""


def check_backend(name: str) -> None:
    """Raise ParameterError unless `name` is the name of a flow backend."""
    check_name(BACKENDS, name, "flow")


def check_farneback(name: str) -> None:
    """Raise ParameterError if the backend does not use Farneback's parameters."""
    if BACKENDS[name].own_parameters is not None:
        raise ParameterError(
            f"farneback is given, but must be left out for flow {name}, which is another method without its parameters"
        )


def recorded_parameters(name: str, parameters: FarnebackParameters) -> dict[str, Any]:
    """The parameters that decide a backend's flow, under the name of its method: {"farneback": {...}} for all but nvof.

    Raises AttenGaitError if they depend on a device that cannot be used.
    """
    own = BACKENDS[name].own_parameters
    return {"farneback": asdict(parameters)} if own is None else {name: own()}


def resolve_backend(name: str) -> str:
    """Return the backend that `name` means on this machine: for `auto` the first of AUTO_ORDER that can be used.

    Any other name is returned as it is. Raises ParameterError for an unknown one.
    """
    if name == AUTO:
        return next(each for each in AUTO_ORDER if BACKENDS[each].missing() is None)
    check_name((AUTO, *BACKENDS), name, "flow")
    return name


def make_backend(name: str, parameters: FarnebackParameters) -> FlowBackend:
    """Return the flow backend of that name.

    Raises ParameterError for an unknown name and for parameters that it does not support, AttenGaitError if it cannot
    be used.
    """
    backend = look_up(BACKENDS, name, "flow")
    if sentence := backend.missing():
        raise AttenGaitError(f"flow backend {name} cannot be used: {sentence}")
    return backend.make(parameters)


def _is_real(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
