"""Small stores of random frames for the tests of what reads them."""

import google_crc32c
import numpy as np
import zarr

from attengait.store import open_store
from attengait.store.layout import CODECS, FrameLayout
from attengait.store.sequences import SequenceRecord, columns_of, write_sequences

SHARD_FRAMES, NUM_SHARDS = 48, 5  # of a store that is made without further settings


def make_store(
    path,
    codec="none",
    *,
    lengths=(20,) * 10,
    sequences_per_subject=2,
    subjects=None,
    shard_frames=SHARD_FRAMES,
    frame_shape=(6, 5, 3),
    write_empty_chunks=True,
    attributes=(),
    seed=0,
    checksums_are_right=True,
):
    """A finished store; the first 16 frames of shard 1 are zeros. Returns it opened."""
    starts = []
    position = 0
    for length in lengths:
        if position % shard_frames + length > shard_frames:
            position += -position % shard_frames
        starts.append(position)
        position += length
    layout = FrameLayout(
        num_shards=-(-position // shard_frames),
        shard_frames=shard_frames,
        chunk_frames=16,
        frame_shape=frame_shape,
        codec=codec,
    )
    frames = np.random.default_rng(seed).integers(0, 256, (layout.num_frames, *frame_shape), np.uint8)
    frames[shard_frames : shard_frames + 16] = 0
    head = {"format": "attengait-store", "version": 1}
    group = zarr.create_group(path, zarr_format=3, attributes=head | dict(attributes))
    array = group.create_array(
        "frames",
        shape=frames.shape,
        dtype="uint8",
        chunks=(16, *frame_shape),
        shards=(shard_frames, *frame_shape),
        compressors=CODECS[codec],
        fill_value=0,
    )
    array.with_config({"write_empty_chunks": write_empty_chunks})[:] = frames
    numbered = [f"{i + 1:03d}" for i in range(len(lengths))]
    records = [
        SequenceRecord(
            subject=(subjects or numbered)[i // sequences_per_subject],
            walk=f"nm-{i % sequences_per_subject + 1:02d}",
            view="090",
            start=start,
            length=length,
            crc32c=google_crc32c.value(frames[start : start + length].tobytes()) if checksums_are_right else 0,
        )
        for i, (start, length) in enumerate(zip(starts, lengths, strict=True))
    ]
    write_sequences(group.create_group("sequences"), columns_of(records))
    return open_store(path)


def zarr_frames(store):
    """All frames as plain zarr-python reads them."""
    return np.asarray(zarr.open_array(store.path / "frames", mode="r")[:])


def assert_equals_zarr(reader, store):
    """Every frame, alone, in clips of odd lengths, and whole shards, with repeats, in one batch."""
    frames = zarr_frames(store)
    bounds = [(i, 1) for i in range(len(frames))]
    bounds += [(s * SHARD_FRAMES + a, n) for s in range(NUM_SHARDS) for a, n in [(0, 48), (3, 17), (31, 17), (3, 17)]]
    clips = reader.read_clips([a for a, _ in bounds], [n for _, n in bounds])
    assert len(clips) == len(bounds)
    for (start, length), clip in zip(bounds, clips, strict=True):
        assert clip.dtype == np.uint8
        assert np.array_equal(clip, frames[start : start + length])
