"""Some of the channels of a store's pictures, for a model that takes only these.

Batches are read with all channels; what is not wanted is dropped on the device.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import torch

from attengait.errors import AttenGaitError
from attengait.model.config import ModelConfig
from attengait.sampling.plan import ClipBatch
from attengait.store import Store
from attengait.store.description import channel_names


@contextmanager
def only_channels(
    stream: AbstractContextManager[Iterator[ClipBatch]], channels: Sequence[int]
) -> Iterator[Iterator[ClipBatch]]:
    """The batches of a stream with the channels of these indices, in this order: clips uint8 [N, T, H, W, C']."""
    with stream as batches:
        yield (dataclasses.replace(batch, clips=take_channels(batch.clips, channels)) for batch in batches)


def take_channels(frames: torch.Tensor, channels: Sequence[int]) -> torch.Tensor:
    """Frames [..., C] with the channels of these indices, [..., C']; the frames themselves where these are all."""
    if list(channels) == list(range(frames.shape[-1])):
        return frames
    return frames[..., torch.tensor(channels, device=frames.device)]


def channels_for(model: ModelConfig, store: Store) -> list[int]:
    """Indices of a store's channels that a model takes; all of them, unless it was trained on some by name.

    Raises AttenGaitError for a store that lacks one.
    """
    names = channel_names(store.attributes, store.frame_shape[2])
    for name in model.input_channels:
        if name not in names:
            raise AttenGaitError(
                f"the model takes the channels {', '.join(model.input_channels)}, but {store.location} has "
                f"{', '.join(names)}"
            )
    return [names.index(name) for name in model.input_channels] or list(range(len(names)))
