"""A plan of clips of a small store, and the batches that a stream gives of it."""

import numpy as np
import torch

from attengait.pipelines.stream import ClipStream
from attengait.sampling.plan import BatchPlan

CLIP_FRAMES = 12

LENGTHS = (20, 15, 12, 9, 40, 13, 20, 17, 30, 31, 11, 12)


def make_plan(store):
    names = sorted(set(store.sequences.subject.tolist()))
    return BatchPlan(store.sequences, names, subjects_per_batch=4, clips_per_subject=2, clip_frames=CLIP_FRAMES, seed=3)


def assert_same(batches, others):
    assert [b.step for b in batches] == [b.step for b in others]
    for one, other in zip(batches, others, strict=True):
        assert torch.equal(one.clips, other.clips)
        assert torch.equal(one.labels, other.labels)
        assert np.array_equal(one.sequences, other.sequences)


def read(store, num_steps, **settings):
    with ClipStream(store, make_plan(store), num_steps=num_steps, **settings) as stream:
        return list(stream)
