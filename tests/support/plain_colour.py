"""The published colours and crop of one flow, line by line as their page says them."""

import cv2
import numpy as np

F = np.float32


def plain_flow_image(flow: np.ndarray, silhouette: np.ndarray) -> np.ndarray:
    """The recipe's page, line by line: colour the whole frame, then crop it."""
    runs = [(15, 0, 1, 1), (6, 1, 0, -1), (4, 1, 2, 1), (11, 2, 1, -1), (13, 2, 0, 1), (6, 0, 2, -1)]
    wheel = np.zeros((55, 3))
    row = 0
    for length, full, changing, direction in runs:
        steps = np.arange(length) / length
        wheel[row : row + length, full] = 1
        wheel[row : row + length, changing] = steps if direction > 0 else 1 - steps
        row += length
    wheel = wheel.astype(F)
    largest = np.sqrt(flow[..., 0] ** 2 + flow[..., 1] ** 2).max()
    dx, dy = (flow[..., 0] / largest, flow[..., 1] / largest) if largest > 0 else (flow[..., 0], flow[..., 1])
    radius = np.sqrt(dx**2 + dy**2)[..., None]
    position = (np.arctan2(-dy, -dx) / F(np.pi) + F(1)) / F(2) * F(54)
    below = np.floor(position).astype(int)
    share = (position - below.astype(F))[..., None]
    colour = (F(1) - share) * wheel[below] + share * wheel[(below + 1) % 55]
    colour = np.where(radius <= 1, F(1) - radius * (F(1) - colour), F(0.75) * colour)
    assert colour.dtype == F
    picture = (F(255) * colour).astype(np.uint8)

    rows = np.flatnonzero(silhouette.sum(axis=1))
    picture, silhouette = picture[rows[0] : rows[-1] + 1], silhouette[rows[0] : rows[-1] + 1]
    width = int(64 * picture.shape[1] / picture.shape[0])
    picture = cv2.resize(picture, (width, 64), interpolation=cv2.INTER_CUBIC)
    silhouette = cv2.resize(silhouette, (width, 64), interpolation=cv2.INTER_CUBIC)
    mass = silhouette.sum(axis=0).cumsum()
    middle = int(np.argmax(mass > silhouette.sum() / 2))
    left, right = middle - 32, middle + 32
    if left <= 0 or right >= width:
        picture = np.pad(picture, ((0, 0), (32, 32), (0, 0)))
        left, right = left + 32, right + 32
    return picture[:, left:right]
