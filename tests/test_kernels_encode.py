"""Stored pictures of one frame: each encoding against a plain transcription and known motion."""

import cv2
import numpy as np
import pytest
from plain_colour import plain_flow_image

from attengait.errors import ParameterError
from attengait.kernels.encode import encode

F = np.float32


def test_colours_of_random_flow_and_silhouettes_equal_the_plain_transcription() -> None:
    random = np.random.default_rng(0)
    for _ in range(60):
        shape = tuple(random.integers(70, 200, 2))
        small = random.normal(size=(6, 7, 2)).astype(F) * 3
        flow = cv2.resize(small, shape[::-1], interpolation=cv2.INTER_LINEAR)
        silhouette = np.zeros(shape, np.uint8)
        top, left = random.integers(0, shape[0] - 50), random.integers(0, shape[1] - 10)
        figure = (random.random((50, 10)) < 0.8) * np.uint8(255)
        silhouette[top : top + 50, left : left + 10] = figure
        np.testing.assert_array_equal(encode(flow, silhouette, "colour", 64), plain_flow_image(flow, silhouette))


def test_a_still_scene_is_white_in_colour() -> None:
    silhouette = np.zeros((96, 128), np.uint8)
    silhouette[10:90, 50:80] = 255
    assert (encode(np.zeros((96, 128, 2), F), silhouette, "colour", 64) == 255).all()


def test_an_unknown_encoding_is_refused_by_name() -> None:
    with pytest.raises(ParameterError, match=r"encoding must be one of colour.*, got 'hsv'"):
        encode(np.zeros((9, 9, 2), F), np.full((9, 9), 255, np.uint8), "hsv", 8)
