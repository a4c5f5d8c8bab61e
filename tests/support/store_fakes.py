"""A made-up source of frames for the tests of the store; importable by spawned workers, unlike the tests themselves."""

import json
import os
import signal
import sys
import threading
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from attengait.store.plan import PlannedSequence, StorePlan
from attengait.store.shards import MadeSequence, write_shard
from attengait.store.skipped import Reason, Skipped
from attengait.store.writer import StoreJob
from attengait.system.workers import run_in_workers

SHAPE = (6, 5, 3)
LENGTHS = (7, 0, 12, 9, 5, 20, 3, 11, 16, 8)


def plan_of(
    lengths=LENGTHS, *, codec="none", chunk_frames=4, recipe=None, versions=None, digests=None, scan_digests=None
):
    sequences = tuple(
        PlannedSequence(
            subject=f"{i // 4 + 1:03d}",
            walk=f"nm-{i % 4 + 1:02d}",
            view="090",
            max_frames=length,
            content_digest=digests[i] if digests else f"digest {i}",
            scan_digest=scan_digests[i] if scan_digests else f"scan {i}",
        )
        for i, length in enumerate(lengths)
    )
    return StorePlan(
        sequences=sequences,
        parameters={"dataset": "fake", "modality": "flow", "encoding": "colour", "recipe": recipe or {"gap": "skip"}},
        versions=versions or {"numpy": "1.2.3"},
        frame_shape=SHAPE,
        codec=codec,
        chunk_frames=chunk_frames,
    )


def name_of(index):
    return f"{index // 4 + 1:03d}/nm-{index % 4 + 1:02d}/090"


def made(pictures, *skipped):
    """What came out of a sequence: its pictures are of the frames 1, 2, 3 and so on."""
    return MadeSequence(pictures=pictures, frame_numbers=np.arange(1, len(pictures) + 1), skipped=skipped)


def frames_of(source):
    """The frames of sequence `source` = (index, planned length); now and then one is dropped, and said so."""
    index, length = source
    dropped = [length - 1] if index % 3 == 0 and length else []
    steps = np.random.default_rng(index).integers(0, 3, (length - len(dropped), *SHAPE))
    frames = np.minimum(steps.cumsum(axis=0), 255).astype(np.uint8)
    return made(
        frames,
        *(Skipped(reason=Reason.SILHOUETTE_EMPTY, where=name_of(index), frames=(frame,)) for frame in dropped),
    )


def zeros(source):
    """As many frames of zeros as were planned."""
    return made(np.zeros((source[1], *SHAPE), np.uint8))


def environment_of(source):
    """Some frames, and what a worker finds itself in."""
    found = f"torch {'torch' in sys.modules}, threads {cv2.getNumThreads()}"
    told = Skipped(reason=Reason.FOREIGN_FILE, where=name_of(source[0]), detail=found)
    return made(frames_of(source).pictures, told)


def too_many(source):
    frames = frames_of(source).pictures
    return made(np.concatenate([frames, frames[:1]]))


def nothing(source):
    told = Skipped(reason=Reason.TOO_FEW, where=name_of(source[0]))
    return made(np.zeros((0, *SHAPE), np.uint8), told)


def dying(source):
    if source[0] == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return frames_of(source)


def unwritable(source):
    raise OSError(28, "No space left on device", "somewhere")


def failing_while_others_wait(source):
    """The first sequence fails once the first of another shard has begun, which never returns."""
    signal_of_the_other = Path(os.environ["FAKE_FIFO"])
    if source[0] == 0:
        signal_of_the_other.read_bytes()
        raise OSError(28, "No space left on device", "somewhere")
    if source[0] == 5:
        signal_of_the_other.write_bytes(b"here")
        threading.Event().wait()
    return frames_of(source)


def refusing_to_run(source):
    raise AssertionError("nothing was to be computed")


def signalling(source):
    """At the sixth sequence send the signal FAKE_SIGNAL to the parent, or to the whole group, and never return."""
    if source[0] == 5:
        number = int(os.environ["FAKE_SIGNAL"])
        if os.environ["FAKE_TARGET"] == "group":
            os.killpg(os.getpgrp(), number)
        else:
            os.kill(os.getppid(), number)
        threading.Event().wait()
    return frames_of(source)


def job_of(path, plan=None, compute=frames_of, *, num_workers=1, skipped=()):
    plan = plan or plan_of()
    inputs = [(i, sequence.max_frames) for i, sequence in enumerate(plan.sequences)]
    run_shards = partial(run_in_processes, make=compute, num_workers=num_workers)
    return StoreJob(path=path, plan=plan, inputs=inputs, run_shards=run_shards, skipped=skipped)


def run_in_processes(tasks, on_poll, *, make, num_workers):
    """Run shards as `attengait.preprocessing.executors.LocalProcesses` does."""
    function = partial(write_shard, make=make)
    run_in_workers(function, tasks, num_workers=min(num_workers, len(tasks)), on_poll=on_poll)


def tree(folder):
    """Every file below `folder` and what it holds."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(Path(folder).rglob("*")) if p.is_file()}


def forget_digest(path):
    """Make a store as version 0.1.0 made it: without a digest."""
    for name, key in (("zarr.json", "digest"), ("frames/zarr.json", "digest")):
        document = json.loads((path / name).read_bytes())
        document["attributes"].pop(key, None)
        (path / name).write_text(json.dumps(document, indent=2))
