"""Write synthetic walkers to disk in the layout of CASIA-B: OUT/rgb and OUT/silh, SSS/walk/VVV/SSS-walk-VVV-FFF.png.

Frames can also be written as videos without loss, OUT/video/SSS-walk-VVV.avi, as CASIA-B's owners distribute them.
OUT/synth.json says what the walkers are made with.

Sequences are independent of each other, so several processes make them. The files do not depend on how many processes.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from attengait.errors import AttenGaitError, require
from attengait.synth.sequence import Identity, render_sequence
from attengait.synth.video import write_video
from attengait.system.files import note_settings
from attengait.system.lookup import check_name
from attengait.system.progress import SILENT, Progress
from attengait.system.workers import run_in_workers

MAX_FRAMES = 120
"""For longer sequences the camera would be so far away that a walker is only a few dozen pixels tall."""

# Noisy pixels never repeat, and silhouettes repeat nearly everywhere. For each, the fastest of the settings tried.
_RGB_PNG = [
    *(cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_HUFFMAN_ONLY),
    *(cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_SUB),
]
_SILHOUETTE_PNG = [
    *(cv2.IMWRITE_PNG_COMPRESSION, 1),
    *(cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE),
    *(cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class SynthConfig:
    """Which walkers to make. Raises ParameterError for values out of range."""

    subjects: int | tuple[int, ...]
    """How many (numbered from 1), or their numbers (1 to 999). A number's identity depends on the seed alone."""
    walks: tuple[str, ...] = ("nm-01", "nm-02", "nm-03", "nm-04", "nm-05", "nm-06", "bg-01", "bg-02", "cl-01", "cl-02")
    """Kind (nm, bg with a bag, cl in a coat) and two digits."""
    views: tuple[int, ...] = (0, 18, 36, 54, 72, 90, 108, 126, 144, 162, 180)
    """Degrees: 0 walks towards the camera, 90 shows the left side, 180 the back."""
    frames: int = 60
    """Frames of each sequence, 25 a second."""
    seed: int = 0
    identity: Identity = "all"
    """What a subject is known by: all (body, gait and skin), or rhythm, how often a second the trunk rocks. With
    rhythm, all people look and walk the same in one walk, and differently in the next; cameras differ by sequence."""
    video: bool = False
    """Frames as videos instead of pictures."""
    workers: int = 1
    """Processes. With 1, the calling process does the work."""

    def __post_init__(self) -> None:
        numbers = self.subject_numbers
        are_numbers = bool(numbers) and all(1 <= number <= 999 for number in numbers)
        require(are_numbers, "subjects", self.subjects, "how many, or their numbers, from 1 to 999")
        for walk in self.walks:
            is_walk = re.fullmatch(r"(nm|bg|cl)-\d\d", walk, re.ASCII) is not None
            require(is_walk, "walk", walk, "nm, bg or cl and two digits, such as nm-01")
        for view in self.views:
            require(0 <= view <= 359, "view", view, "whole degrees from 0 to 359")
        for name, values in (("subjects", numbers), ("walks", self.walks), ("views", self.views)):
            is_accepted = bool(values) and len(set(values)) == len(values)
            require(is_accepted, name, list(values), "at least one, and each only once")
        require(1 <= self.frames <= MAX_FRAMES, "frames", self.frames, f"from 1 to {MAX_FRAMES}")
        check_name(get_args(Identity), self.identity, "identity")
        require(self.seed >= 0, "seed", self.seed, "at least 0")
        require(self.workers >= 1, "workers", self.workers, "at least 1")

    @property
    def subject_numbers(self) -> tuple[int, ...]:
        """The subjects' numbers."""
        return tuple(range(1, self.subjects + 1)) if isinstance(self.subjects, int) else self.subjects

    @property
    def num_sequences(self) -> int:
        """Sequences to make."""
        return len(self.subject_numbers) * len(self.walks) * len(self.views)

    @property
    def num_frames(self) -> int:
        """Frames to make. There are as many silhouettes."""
        return self.num_sequences * self.frames


@dataclass(frozen=True, slots=True, kw_only=True)
class SynthSummary:
    """What was written, and where."""

    frames: Path
    silhouettes: Path
    num_subjects: int
    num_sequences: int
    num_frames: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Task:
    """One sequence to write; picklable."""

    out: Path
    seed: int
    subject: int
    walk: str
    view: int
    frames: int
    identity: Identity
    video: bool


def write_walkers(out: Path, config: SynthConfig, *, progress: Progress = SILENT) -> SynthSummary:
    """Write OUT/rgb or OUT/video (BGR 320 x 240) and OUT/silh (0 or 255).

    OUT/synth.json says what the walkers are made with. If the folder holds such walkers already, other sequences stay,
    and sequences of the same name are replaced. So the same call always ends in the same files. Files are not flushed
    to the disk one by one: after an interruption, run it again.

    Raises ParameterError for a folder whose walkers were made with another seed, identity or number of frames, or with
    videos instead of pictures, and for one whose frames or silhouettes are of unknown origin: other people would stay
    beside these. Raises AttenGaitError when a file cannot be written or a worker process dies.
    """
    _check_folder(out, config)
    tasks = [
        _Task(
            out=out,
            seed=config.seed,
            subject=subject,
            walk=walk,
            view=view,
            frames=config.frames,
            identity=config.identity,
            video=config.video,
        )
        for subject in config.subject_numbers
        for walk in config.walks
        for view in config.views
    ]
    done = 0

    def count(frames: int) -> None:
        nonlocal done
        done += frames
        progress.update("Synthetic walkers", done, config.num_frames, unit="frames")

    if config.workers == 1:
        for task in tasks:
            count(_write_sequence(task))
    else:
        run_in_workers(_write_sequence, tasks, num_workers=min(config.workers, len(tasks)), on_result=count)
    return SynthSummary(
        frames=out / ("video" if config.video else "rgb"),
        silhouettes=out / "silh",
        num_subjects=len(config.subject_numbers),
        num_sequences=len(tasks),
        num_frames=done,
    )


def _check_folder(out: Path, config: SynthConfig) -> None:
    """Make the folder, and note what its walkers are made with; refuse one that holds others."""
    _make_folder(out)
    noted = out / "synth.json"
    held = [name for name in ("rgb", "silh", "video") if any((out / name).glob("*"))]
    unknown = f"a new folder: it holds {' and '.join(held)}, but no {noted.name} that says what they were made with"
    require(noted.exists() or not held, "out", str(out), unknown)
    made_with = {"seed": config.seed, "identity": config.identity, "frames": config.frames, "video": config.video}
    note_settings(noted, made_with, "out")


def _write_sequence(task: _Task) -> int:
    parts = (f"{task.subject:03d}", task.walk, f"{task.view:03d}")
    name = "-".join(parts)
    rendered = list(render_sequence(task.seed, task.subject, task.walk, task.view, task.frames, task.identity))
    frames, silhouettes = [frame for frame, _ in rendered], [silhouette for _, silhouette in rendered]
    _write_pictures(task.out.joinpath("silh", *parts), name, silhouettes, _SILHOUETTE_PNG)
    if task.video:
        _make_folder(task.out / "video")
        write_video(task.out / "video" / f"{name}.avi", frames)
    else:
        _write_pictures(task.out.joinpath("rgb", *parts), name, frames, _RGB_PNG)
    return task.frames


def _write_pictures(folder: Path, prefix: str, pictures: list[NDArray[np.uint8]], options: list[int]) -> None:
    _make_folder(folder)
    for number, picture in enumerate(pictures, 1):
        path = folder / f"{prefix}-{number:03d}.png"
        try:
            path.write_bytes(cv2.imencode(".png", picture, options)[1].tobytes())
        except OSError as error:
            raise AttenGaitError(f"cannot write {path}: {error.strerror}") from None


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AttenGaitError(f"cannot write to {folder}: {error.strerror}") from None
