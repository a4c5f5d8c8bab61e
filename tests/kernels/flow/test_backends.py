"""Flow backends: parameters are checked, pairs are what was asked for, and flow points where things moved."""

import cv2
import numpy as np
import pytest

from attengait.errors import AttenGaitError, ParameterError
from attengait.kernels.flow import backends as flow_module
from attengait.kernels.flow.backends import (
    AUTO_ORDER,
    BACKENDS,
    Backend,
    FarnebackParameters,
    make_backend,
    resolve_backend,
)


def texture(seed: int, num: int = 1, shape: tuple[int, int] = (60, 80)) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    noise = random.integers(0, 256, (num, *shape), dtype=np.uint8)
    return [cv2.GaussianBlur(picture, (0, 0), 2) for picture in noise]


@pytest.mark.parametrize("name", list(BACKENDS))
def test_flow_is_the_displacement_in_pixels_from_the_first_frame_to_the_second(name: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (120, 140), dtype=np.uint8)
    if BACKENDS[name].missing():
        pytest.skip(f"{name} cannot be used here: {BACKENDS[name].missing()}")
    wide = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 3), None, 0, 255, cv2.NORM_MINMAX)
    first, second = wide[20:100, 20:120], wide[22:102, 17:117]
    (flow,) = make_backend(name, FarnebackParameters()).flows([first, second], [(0, 1)])
    assert flow.dtype == np.float32
    assert flow.shape == (80, 100, 2)
    np.testing.assert_allclose(np.median(flow, axis=(0, 1)), (3, -2), atol=0.1)


def test_opencv_flow_is_that_of_calc_optical_flow_farneback() -> None:
    grays = texture(1, num=3)
    pairs = [(1, 2), (0, 1), (2, 0)]
    flows = make_backend("opencv", FarnebackParameters()).flows(grays, pairs)
    for (first, second), flow in zip(pairs, flows, strict=True):
        expected = cv2.calcOpticalFlowFarneback(grays[first], grays[second], None, 0.5, 3, 15, 3, 5, 1.2, 0)
        np.testing.assert_array_equal(flow, expected)


def test_every_parameter_reaches_opencv() -> None:
    first, second = texture(2, num=2)
    parameters = FarnebackParameters(pyr_scale=0.7, levels=1, winsize=9, iterations=2, poly_n=7, poly_sigma=1.5)
    (flow,) = make_backend("opencv", parameters).flows([first, second], [(0, 1)])
    expected = cv2.calcOpticalFlowFarneback(first, second, None, 0.7, 1, 9, 2, 7, 1.5, 0)
    np.testing.assert_array_equal(flow, expected)


def test_flows_are_computed_one_at_a_time() -> None:
    grays = texture(3, num=2)
    flows = make_backend("opencv", FarnebackParameters()).flows(grays, [(0, 1), (0, 99)])
    next(flows)
    with pytest.raises(IndexError):
        next(flows)


def test_an_unknown_backend_is_refused_with_the_known_names() -> None:
    with pytest.raises(ParameterError, match=r"^flow is 'warp', but must be one of opencv, "):
        make_backend("warp", FarnebackParameters())


def test_the_gaussian_window_reaches_opencv() -> None:
    first, second = texture(2, num=2)
    (flow,) = make_backend("opencv", FarnebackParameters(window="gaussian")).flows([first, second], [(0, 1)])
    flags = cv2.OPTFLOW_FARNEBACK_GAUSSIAN
    expected = cv2.calcOpticalFlowFarneback(first, second, None, 0.5, 3, 15, 3, 5, 1.2, flags)
    np.testing.assert_array_equal(flow, expected)


def set_missing(monkeypatch: pytest.MonkeyPatch, name: str, sentence: str | None) -> None:
    made = Backend(needs="luck", missing=lambda: sentence, make=flow_module.OpenCVFlow)
    monkeypatch.setitem(BACKENDS, name, made)


def test_auto_is_the_first_backend_in_order_that_can_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    assert AUTO_ORDER == ("cuda", "cpu", "opencv")
    for name in ("cuda", "cpu"):
        set_missing(monkeypatch, name, "no luck")
    assert resolve_backend("auto") == "opencv"
    for name in ("cpu", "cuda"):
        set_missing(monkeypatch, name, None)
        assert resolve_backend("auto") == name


def test_a_named_backend_stands_for_itself_even_where_it_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    set_missing(monkeypatch, "cuda", "no luck")
    assert [resolve_backend(name) for name in BACKENDS] == list(BACKENDS)
    with pytest.raises(ParameterError, match=r"^flow is 'warp', but must be one of auto, opencv, "):
        resolve_backend("warp")


def test_a_backend_that_cannot_be_used_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    set_missing(monkeypatch, "cuda", "no luck")
    with pytest.raises(AttenGaitError, match=r"^flow backend cuda cannot be used: no luck$"):
        make_backend("cuda", FarnebackParameters())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("pyr_scale", 0.0),
        ("pyr_scale", 1.0),
        ("pyr_scale", float("nan")),
        ("pyr_scale", True),
        ("levels", -1),
        ("levels", 2.0),
        ("winsize", 1),
        ("iterations", 0),
        ("iterations", True),
        ("poly_n", 0),
        ("poly_sigma", 0.19),
        ("poly_sigma", float("inf")),
        ("poly_sigma", "1.2"),
        ("window", "triangle"),
    ],
)
def test_a_parameter_out_of_range_is_named_with_its_value(name: str, value: object) -> None:
    with pytest.raises(ParameterError, match=rf"^{name} is {value!r}, but must be "):
        FarnebackParameters(**{name: value})
