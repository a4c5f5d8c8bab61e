"""OpenCV's CUDA flow with a stand-in for cv2.cuda, which no wheel has: what it is given and what is refused."""

from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from attengait.errors import ParameterError
from attengait.kernels.flow import opencv_cuda as flow_opencv_cuda
from attengait.kernels.flow.backends import FarnebackParameters, make_backend
from attengait.kernels.flow.opencv_cuda import OpenCVCudaFlow


class Matrix:
    def __init__(self, array: np.ndarray | None = None) -> None:
        self.array = array

    def upload(self, array: np.ndarray) -> None:
        self.array = array

    def download(self) -> np.ndarray:
        assert self.array is not None
        return self.array


class OnTheCpu:
    """cv2.cuda.FarnebackOpticalFlow, computed by the CPU's function from the parameters that it was given."""

    def __init__(self, **parameters: Any) -> None:
        self.parameters = parameters

    def calc(self, first: Matrix, second: Matrix, flow: None) -> Matrix:
        names = ("pyrScale", "numLevels", "winSize", "numIters", "polyN", "polySigma", "flags")
        parameters = [self.parameters[name] for name in names]
        return Matrix(cv2.calcOpticalFlowFarneback(first.array, second.array, flow, *parameters))


@pytest.fixture
def built_with_cuda(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    cuda = SimpleNamespace(FarnebackOpticalFlow_create=OnTheCpu, GpuMat=Matrix, getCudaEnabledDeviceCount=lambda: 1)
    monkeypatch.setattr(cv2, "cuda", cuda)
    return cuda


PARAMETERS = FarnebackParameters(
    pyr_scale=0.6, levels=2, winsize=11, iterations=2, poly_n=7, poly_sigma=1.5, window="gaussian"
)


@pytest.mark.parametrize("parameters", [FarnebackParameters(), PARAMETERS])
def test_every_parameter_and_every_pair_arrives(built_with_cuda: object, parameters: FarnebackParameters) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (3, 60, 80), dtype=np.uint8)
    grays = [cv2.GaussianBlur(picture, (0, 0), 2) for picture in noise]
    pairs = [(0, 1), (2, 1)]
    flows = list(make_backend("opencv-cuda", parameters).flows(grays, pairs))
    for flow, expected in zip(flows, make_backend("opencv", parameters).flows(grays, pairs), strict=True):
        np.testing.assert_array_equal(flow, expected)


def test_every_default_of_the_class_is_overruled(built_with_cuda: object) -> None:
    made = OpenCVCudaFlow(FarnebackParameters())._farneback.parameters
    assert made == {
        "numLevels": 3,
        "pyrScale": 0.5,
        "fastPyramids": False,
        "winSize": 15,
        "numIters": 3,
        "polyN": 5,
        "polySigma": 1.2,
        "flags": 0,
    }


def test_what_it_cannot_do_is_refused(built_with_cuda: object) -> None:
    with pytest.raises(ParameterError, match=r"^poly_n is 6, but must be 5 or 7 for flow opencv-cuda$"):
        OpenCVCudaFlow(FarnebackParameters(poly_n=6))
    OpenCVCudaFlow(FarnebackParameters(winsize=203))
    OpenCVCudaFlow(FarnebackParameters(winsize=201, window="gaussian"))
    with pytest.raises(ParameterError, match=r"^winsize is 203, but must be at most 201 "):
        OpenCVCudaFlow(FarnebackParameters(winsize=203, window="gaussian"))


def test_an_opencv_without_cuda_and_one_without_a_gpu_are_said(
    built_with_cuda: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert flow_opencv_cuda.missing() is None
    built_with_cuda.getCudaEnabledDeviceCount = lambda: 0
    assert flow_opencv_cuda.missing() == "OpenCV finds no CUDA GPU that it was built for"
    for cuda in (SimpleNamespace(getCudaEnabledDeviceCount=lambda: 1), None):
        monkeypatch.setattr(cv2, "cuda", cuda)
        assert "no wheel" in str(flow_opencv_cuda.missing())


@pytest.mark.gpu
def test_on_a_gpu_it_is_near_the_cpu_on_smooth_motion() -> None:
    if sentence := flow_opencv_cuda.missing():
        pytest.skip(sentence)
    noise = np.random.default_rng(0).integers(0, 256, (280, 360), dtype=np.uint8)
    wide = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 3), None, 0, 255, cv2.NORM_MINMAX)
    grays = [np.ascontiguousarray(wide[20:260, 20:340]), np.ascontiguousarray(wide[22:262, 17:337])]
    (flow,) = OpenCVCudaFlow(FarnebackParameters()).flows(grays, [(0, 1)])
    np.testing.assert_allclose(np.median(flow, axis=(0, 1)), (3, -2), atol=0.2)
