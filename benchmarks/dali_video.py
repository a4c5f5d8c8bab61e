"""Whether DALI's video decoder gives the frames that a store may hold, also from broken videos; docs/gpu.md says why.

    python -m attengait.benchmarks.dali_video --device gpu [VIDEO ...]

The device `gpu` is NVDEC; `cpu` is DALI's own decoder, which knows fewer codecs. Two videos are made, motion JPEG and
MPEG-4 in AVI files, and two broken copies of each: half of one frame is lost (zeros), or the last frame is missing
although the header counts it. What the whole video holds is known, so wrong frames can be counted. Videos that are
named are decoded as they are.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from attengait.benchmarks.flow import turning_frames
from attengait.benchmarks.report import versions
from attengait.datasets.video import BrokenVideoError, decoder_version, read_video
from attengait.errors import AttenGaitError
from attengait.kernels.runtime.dali import reason

NUM_FRAMES, BROKEN_FRAME = 60, 30
CODECS = {"motion JPEG": "MJPG", "MPEG-4": "XVID"}
FAR_LEVELS, FAR_SHARE = 16, 0.01
"""Frames are different where more than this share of the pixels differs by more than so many levels. Decoders round
colours differently, and the pictures of MPEG-4 too, but never so much."""


class Decoded(NamedTuple):
    """What a decoder makes of a video."""

    grays: Sequence[NDArray[np.uint8]]
    """Each uint8 [H, W]; those before the first complaint."""
    complaint: str
    """What the decoder says is wrong; empty where it says nothing."""
    seconds: float


class Row(NamedTuple):
    """One video, decoded by one decoder."""

    video: str
    decoder: str
    frames: int
    wrong: int
    """Frames that are handed out although the video does not hold them, or holds others in their places."""
    levels: int
    """The largest difference of a grey value in the others."""
    complaint: str
    frames_per_s: float


def by_ffmpeg(path: Path) -> Decoded:
    """Decode a video as `attengait preprocess` does."""
    grays: list[NDArray[np.uint8]] = []
    complaint, started = "", time.perf_counter()
    try:
        for _, gray, _ in read_video(str(path), set(range(1, 100_001))):
            assert gray is not None
            grays.append(gray)
    except BrokenVideoError as error:
        complaint = str(error)
    return Decoded(grays, complaint, time.perf_counter() - started)


def by_dali(path: Path, device: str) -> Decoded:
    """Decode a video by DALI: on the `cpu`, or on the `gpu` by NVDEC. Raises AttenGaitError where DALI is missing."""
    try:
        from nvidia.dali import fn, pipeline_def, types
    except ImportError as error:
        raise AttenGaitError("NVIDIA DALI is not installed") from error
    on_gpu = device == "gpu"

    def graph() -> object:
        file = fn.external_source(source=lambda: [np.fromfile(path, np.uint8)], dtype=types.UINT8, ndim=1)
        frames = fn.decoders.video(file, device="mixed" if on_gpu else "cpu")
        return fn.color_space_conversion(frames, image_type=types.RGB, output_type=types.GRAY)

    try:
        pipeline = pipeline_def(graph)(
            batch_size=1, num_threads=1, device_id=0 if on_gpu else None, prefetch_queue_depth=1
        )
        pipeline.build()
        pipeline.run()
        started = time.perf_counter()
        (frames,) = pipeline.run()
        grays = [*np.array((frames.as_cpu() if on_gpu else frames)[0])[..., 0]]
    except RuntimeError as error:
        return Decoded([], reason(error), 0.0)
    return Decoded(grays, "", time.perf_counter() - started)


def compare_frames(grays: Sequence[NDArray[np.uint8]], held: Sequence[NDArray[np.uint8]]) -> tuple[int, int]:
    """How many frames are not those that the video holds in their places, or more than it holds; see Row for both."""
    differences = [cv2.absdiff(ours, theirs) for ours, theirs in zip(grays, held, strict=False)]
    near = [each for each in differences if np.mean(each > FAR_LEVELS) <= FAR_SHARE]
    return len(grays) - len(near), max((int(each.max()) for each in near), default=0)


def made_videos(folder: Path) -> Iterator[tuple[str, Path, Sequence[NDArray[np.uint8]]]]:
    """Write each video and its broken copies; yield what is wrong with it, its path and what it holds."""
    pictures = turning_frames(NUM_FRAMES, 320, 240)
    for codec, code in CODECS.items():
        whole = folder / f"{code}.avi"
        writer = cv2.VideoWriter(str(whole), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*code), 25, (320, 240))
        for picture in pictures:
            writer.write(cv2.cvtColor(picture, cv2.COLOR_GRAY2BGR))
        writer.release()
        held = by_ffmpeg(whole).grays
        assert len(held) == NUM_FRAMES
        yield codec, whole, held
        data = bytearray(whole.read_bytes())
        start, size = frame_places(data)[BROKEN_FRAME - 1]
        middle = slice(start + size // 4, start + size * 3 // 4)
        data[middle] = bytes(middle.stop - middle.start)
        (broken := folder / f"{code}-broken.avi").write_bytes(data)
        yield f"{codec}, frame {BROKEN_FRAME} half lost", broken, held
        data = bytearray(whole.read_bytes())
        start, _ = frame_places(data)[-1]
        data[start - 8 : start - 4] = b"JUNK"
        (short := folder / f"{code}-short.avi").write_bytes(data)
        yield f"{codec}, the last frame missing", short, held[:-1]


def frame_places(data: bytearray) -> list[tuple[int, int]]:
    """Where the frames of an AVI file with nothing but video begin, and how many bytes they have."""
    places, at = [], data.index(b"movi") + 4
    while (name := data[at : at + 4]) != b"idx1" and name:
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        if name == b"00dc":
            places.append((at + 8, size))
        at += 8 + size + size % 2
    return places


def compare(videos: Sequence[Path], device: str) -> Iterator[Row]:
    """Decode all videos by FFmpeg and by DALI. What the named ones hold is what FFmpeg says."""
    with tempfile.TemporaryDirectory() as folder:
        made = made_videos(Path(folder))
        named = ((path.name, path, by_ffmpeg(path).grays) for path in videos)
        for what, path, held in (*made, *named):
            for decoder, decoded in (("FFmpeg", by_ffmpeg(path)), (f"DALI {device}", by_dali(path, device))):
                number = len(decoded.grays)
                rate = number / decoded.seconds if decoded.seconds else 0.0
                wrong, levels = compare_frames(decoded.grays, held)
                yield Row(what, decoder, number, wrong, levels, decoded.complaint, rate)


def main() -> None:
    """Print one row for each video and decoder, and all of them as one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", nargs="*", type=Path, metavar="VIDEO", help="decoded, too")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu", help="where DALI decodes")
    chosen = parser.parse_args()
    print(f"{'video':36} {'decoder':9} {'frames':>6} {'wrong':>6} {'levels':>6} {'frames/s':>9}  what it said")
    rows = []
    for row in compare(chosen.videos, chosen.device):
        rows.append(row._asdict())
        numbers = f"{row.frames:6} {row.wrong:6} {row.levels:6} {row.frames_per_s:9,.0f}"
        print(f"{row.video:36} {row.decoder:9} {numbers}  {row.complaint[:50] or 'nothing'}", flush=True)
    used = {**versions("nvidia-dali"), "ffmpeg": decoder_version()}
    print(", ".join(f"{name} {number}" for name, number in used.items()))
    print(json.dumps({"versions": used, "results": rows}))


if __name__ == "__main__":
    main()
