"""Small videos for tests, and what may be wrong with them."""

import struct
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np


def moving_frames(num_frames: int, shape: tuple[int, int] = (48, 80), *, channels: int = 3) -> list[np.ndarray]:
    """A textured block that moves over a textured ground, uint8 [H, W, 3]; grey where `channels` is 1."""
    rng = np.random.default_rng(7)
    ground, block = (
        cv2.GaussianBlur(rng.integers(0, 256, (*size, channels), np.uint8), (0, 0), 1.5).reshape(*size, channels)
        for size in (shape, (30, 14))
    )
    frames = []
    for number in range(1, num_frames + 1):
        frame = ground.copy()
        frame[10:40, 10 + 2 * number : 24 + 2 * number] = block
        frames.append(np.ascontiguousarray(np.broadcast_to(frame, (*shape, 3))))
    return frames


def outlines(num_frames: int, shape: tuple[int, int] = (48, 80)) -> list[np.ndarray]:
    """The silhouettes of `moving_frames`, uint8 [H, W]."""
    pictures = [np.zeros(shape, np.uint8) for _ in range(num_frames)]
    for number, picture in enumerate(pictures, 1):
        picture[10:40, 10 + 2 * number : 24 + 2 * number] = 255
    return pictures


def encode(path: Path, frames: Sequence[np.ndarray], codec: str, *, frames_per_second: float = 25) -> Path:
    """Write a video with one of OpenCV's encoders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = frames[0].shape[:2]
    writer = cv2.VideoWriter(
        str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*codec), frames_per_second, (width, height)
    )
    assert writer.isOpened()
    for frame in frames:
        writer.write(frame)
    writer.release()
    return path


def grays(frames: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Each frame in grey."""
    return [cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY) for frame in frames]


def vary_frame_rate(path: Path) -> None:
    """Show every other frame of an MP4 file three times as long, in the same time altogether."""
    data = path.read_bytes()
    moov = data.rindex(b"moov") - 4
    assert moov + int.from_bytes(data[moov : moov + 4], "big") == len(data), "what follows would move"
    boxes, start = [], moov
    for name in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stts"):
        start = data.index(name, start) - 4
        boxes.append(start)
    table = boxes[-1]
    old_bytes = int.from_bytes(data[table : table + 4], "big")
    entries, num_frames, duration = struct.unpack(">3I", data[table + 12 : table + 24])
    assert (entries, num_frames % 2, duration % 2) == (1, 0, 0)
    rows = b"".join(struct.pack(">2I", 1, duration // 2 * (3 if i % 2 else 1)) for i in range(num_frames))
    new = data[table + 4 : table + 12] + struct.pack(">I", num_frames) + rows
    changed = bytearray(data[:table] + struct.pack(">I", len(new) + 4) + new + data[table + old_bytes :])
    for box in boxes[:-1]:
        size = int.from_bytes(changed[box : box + 4], "big") + len(new) + 4 - old_bytes
        changed[box : box + 4] = struct.pack(">I", size)
    path.write_bytes(changed)
