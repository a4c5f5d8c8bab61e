"""AttenGait: a per-frame backbone with patch attention, two pyramids over its last map, and a head per part.

    uint8 [N, T, 64, 64, C] -> backbone -> [N, T, 16, 16, w3] -> pyramids -> [N, 62, w3] -> head -> [N, 62, D]

The backbone takes each frame by itself, so frames of many sequences go through it together. Only the pyramids need
to know where a sequence ends. So sequences of different lengths can be embedded at once (`embed_ragged`).

N clips or sequences, T frames, C channels, P = 62 parts, D features per part, K classes, M = frames of all clips.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from attengait.errors import ParameterError, require
from attengait.model.attention import PartAttention, PatchAttention
from attengait.model.config import FRAME_PIXELS, ModelConfig
from attengait.model.initialisation import initialise_classifier, initialise_convolution, initialise_part_linear
from attengait.model.precision import computing, in_float32
from attengait.model.pyramids import MIN_FRAMES, PARTS_PER_PYRAMID, SpatialPyramid, TemporalPyramid

Images = Tensor | NDArray[Any]

PARTS = 2 * PARTS_PER_PYRAMID
CHUNK_FRAMES = 256
"""Frames that the backbone takes at once when embedding: bounds memory whatever the length of the sequences."""


class PartLinear(nn.Module):
    """One linear map per part, as one batched product: [N, P, in] -> [N, P, out]."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(PARTS, inputs, outputs))
        initialise_part_linear(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Multiply every part by its own matrix."""
        return torch.bmm(x.transpose(0, 1), self.weight).transpose(0, 1)


class Classifier(nn.Module):
    """Dense layers on embeddings [N, P, D]: logits [N, P, K], or [N, 1, K] of one layer for all parts together."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.is_joint = config.classifiers == "joint"
        count = PARTS if config.classifiers == "separate" else 1
        inputs = config.embedding_size * (PARTS if self.is_joint else 1)
        self.weight = nn.Parameter(torch.empty(count, inputs, config.num_classes))
        self.bias = nn.Parameter(torch.zeros(count, config.num_classes))
        initialise_classifier(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Multiply every part by its matrix and add its bias."""
        parts = x.flatten(1)[None] if self.is_joint else x.transpose(0, 1)  # [P or 1, N, inputs]
        weight = self.weight.expand(len(parts), -1, -1)
        return torch.baddbmm(self.bias[:, None], parts, weight).transpose(0, 1)


class Backbone(nn.Module):
    """Frame by frame: [M, 64, 64, C] in [-1, 1] -> [M, 16, 16, w3]. Memory is channels-last throughout."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        convolutions: list[nn.Module] = [_convolution(config.channels, config.widths[0], 5)]
        attentions: list[nn.Module] = []
        size_px, width = FRAME_PIXELS, config.widths[0]
        for stage, next_width in enumerate(config.widths):
            for block in range(config.blocks_per_stage):
                pool = stage > 0 and block == 0
                size_px = size_px // 2 if pool else size_px
                attentions.append(PatchAttention(config, size_px, width, pool=pool))
                convolutions.append(_convolution(width, next_width, 3))
                width = next_width
        attentions.append(PatchAttention(config, size_px, width, pool=False))
        self.convolutions = nn.ModuleList(convolutions)
        self.attentions = nn.ModuleList(attentions)

    def forward(self, x: Tensor) -> Tensor:
        """Convolution, then swish, pooling where a stage begins, and patch attention."""
        for convolution, attention in zip(self.convolutions, self.attentions, strict=True):
            x = attention(convolution(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
        return x

    def forward_again(self, frames: Tensor, chunk_frames: int) -> Tensor:
        """The same for frames [M, 64, 64, C] as they are stored, without keeping the maps for the backward pass.

        It computes them again, of `chunk_frames` frames at a time, so that only these are in memory together. Attention
        is drawn once: dropout drops the same patches in every chunk, and in both passes.
        """
        attentions = cast("list[PatchAttention]", list(self.attentions))
        scalars = [attention.pixel_scalars() for attention in attentions]

        def chunk_forward(chunk: Tensor, *scalars: Tensor) -> Tensor:
            x = normalise(chunk)
            for convolution, attention, a in zip(self.convolutions, attentions, scalars, strict=True):
                x = attention.normalised(convolution(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1), a)
            return x

        options: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": False}  # nothing in it is random
        chunks = torch.split(frames, chunk_frames)
        return torch.cat([checkpoint(chunk_forward, chunk, *scalars, **options) for chunk in chunks])


class AttenGait(nn.Module):
    """The whole network. A new one draws its weights from torch's random state. `attengait.load_model` reads a
    trained one.

    Raises ParameterError for a configuration out of range.

    >>> type(model).__name__, model.config.input_channels
    ('AttenGait', ())
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        width, part_width, size = config.widths[2], config.part_width, config.embedding_size
        self.backbone = Backbone(config)
        self.spatial = SpatialPyramid(config)
        self.temporal = TemporalPyramid(config)
        self.spatial_attention = PartAttention(config, PARTS_PER_PYRAMID, width, config.attention_dropout)
        self.temporal_attention = PartAttention(config, PARTS_PER_PYRAMID, width, config.attention_dropout)
        self.part_linear = PartLinear(width, part_width)
        self.part_attention = PartAttention(config, PARTS, part_width, config.attention_dropout)
        self.embedding_linear = PartLinear(part_width, size)
        self.embedding_attention = PartAttention(config, PARTS, size, 0.0)
        self.classifier = Classifier(config) if config.num_classes else None
        self.recompute_frames = 0
        """In training: the backbone's maps of so many frames are kept at a time, and computed again in the backward
        pass; 0: all are kept."""

    def forward(self, frames: Tensor) -> Tensor:
        """Embeddings float32 [N, 62, D] of clips of one length, at least 16 frames.

        Args:
            frames: [N, T, 64, 64, C], uint8, or floating and already in [-1, 1] (clips mixed by augmentation).
        """
        images = frames.flatten(0, 1)
        if self.recompute_frames and torch.is_grad_enabled():
            maps = self.backbone.forward_again(images, self.recompute_frames)
        else:
            maps = self.backbone(normalise(images))
        return self._head(self._pyramids(maps.view(*frames.shape[:2], *maps.shape[1:])))

    def classify(self, embeddings: Tensor) -> Tensor:
        """Logits float32 [N, 62, K] of embeddings [N, 62, D]; [N, 1, K] of a joint classifier.

        They are computed in float32 under autocast, too: between 8 and 16, bfloat16 has only every sixteenth of 1.

        Raises:
            ParameterError: the network was built without classifiers (num_classes = 0).
        """
        if self.classifier is None:
            raise ParameterError("num_classes is 0, but must be at least 1 for a model that classifies")
        with in_float32(embeddings.device):
            logits: Tensor = self.classifier(embeddings.float())
        return logits

    @torch.no_grad()
    def embed(self, frames: Images | Iterable[Images]) -> Tensor:
        """Embeddings of whole sequences, float32, on the device where the network is, without dropout in any mode.

        A sequence shorter than 16 images is repeated from its start until it has 16. Many sequences of a store are
        embedded faster by `attengait.embed`.

        Args:
            frames: one sequence, uint8 [T, 64, 64, C]; or N sequences of one length, uint8 [N, T, 64, 64, C]; or
                sequences of any lengths, such as a list or a store. NumPy arrays or torch tensors.

        Returns:
            [62, D] of one sequence, [N, 62, D] of several.

        Raises:
            ParameterError: frames of another shape or type, or no sequence at all.

        >>> model.embed(store[0]).shape == (62, model.config.embedding_size)
        True
        >>> len(model.embed([store[0], store[1, :20]]))
        2
        """
        with computing(next(self.parameters()).device, "fp32"):
            return self._embed(frames)

    def _embed(self, frames: Images | Iterable[Images]) -> Tensor:
        if isinstance(frames, (Tensor, np.ndarray)):
            images = self._tensor(frames)
            if images.dim() == 4:
                return self.embed_ragged(images, [len(images)])[0]
            if images.dim() == 5:
                return self.embed_ragged(images.flatten(0, 1), [images.shape[1]] * images.shape[0])
            sequence = f"T, {FRAME_PIXELS}, {FRAME_PIXELS}, {self.config.channels}]"
            raise ParameterError(f"frames is {list(images.shape)}, but must be [{sequence} or [N, {sequence}")
        if not isinstance(frames, Iterable):
            raise _not_images(frames)
        embeddings = [self.embed_ragged(images, [len(images)])[0] for images in map(self._tensor, frames)]
        require(bool(embeddings), "frames", [], "at least one sequence")
        return torch.stack(embeddings)

    @torch.no_grad()
    def embed_ragged(
        self, frames: Tensor, lengths: Tensor | Sequence[int], *, chunk_frames: int = CHUNK_FRAMES
    ) -> Tensor:
        """Embeddings float32 [n, 62, D] of n sequences of any lengths, equal to embedding each alone, without dropout.

        How exactly float32 is computed on a GPU is up to the caller (`attengait.model.precision.computing`).
        A sequence shorter than 16 frames is repeated from its start until it has 16.

        Args:
            frames: uint8 [sum of lengths, 64, 64, C], the sequences' frames one after the other.
            lengths: frames of each sequence [n].
            chunk_frames: frames that the backbone takes at once.

        Raises:
            ParameterError: frames of another shape or type, or lengths that do not add up to them.
        """
        lengths = [int(length) for length in lengths]
        self._check(frames, lengths)
        with _evaluation_mode(self):
            maps = torch.cat([self.backbone(normalise(chunk)) for chunk in torch.split(frames, chunk_frames)])
            parts = [self._pyramids(sequences) for sequences in _split(maps, lengths)]
            return self._head(torch.cat(parts)).float()

    def _tensor(self, images: Images) -> Tensor:
        """Images as a tensor on the network's device; raises ParameterError for an array of another type than uint8."""
        if not isinstance(images, (Tensor, np.ndarray)):
            raise _not_images(images)
        if isinstance(images, np.ndarray):
            if images.dtype != np.uint8:
                raise self._refusal(images)
            # torch takes no array that is mirrored, and warns of one that must not be written: these are copied.
            images = torch.from_numpy(np.require(images, requirements=["C", "W"]))
        return torch.as_tensor(images, device=next(self.parameters()).device)

    def _pyramids(self, maps: Tensor) -> Tensor:
        """[N, T, 16, 16, w3] -> weighed parts float32 [N, 62, w3]."""
        spatial = self.spatial_attention(self.spatial(maps))
        temporal = self.temporal_attention(self.temporal(maps))
        return torch.cat([spatial, temporal], 1)

    def _head(self, parts: Tensor) -> Tensor:
        """[N, 62, w3] -> embeddings float32 [N, 62, D]."""
        parts = self.part_attention(self.part_linear(parts))
        embeddings: Tensor = self.embedding_attention(self.embedding_linear(parts))
        return embeddings

    def _check(self, frames: Tensor, lengths: list[int]) -> None:
        shape = (FRAME_PIXELS, FRAME_PIXELS, self.config.channels)
        if frames.dim() != 4 or tuple(frames.shape[1:]) != shape or frames.dtype != torch.uint8:
            raise self._refusal(frames)
        is_accepted = bool(lengths) and min(lengths) >= 1 and sum(lengths) == len(frames)
        require(is_accepted, "lengths", lengths, f"at least 1 each and add up to the {len(frames)} frames")

    def _refusal(self, frames: Images) -> ParameterError:
        wanted = f"uint8 [M, {FRAME_PIXELS}, {FRAME_PIXELS}, {self.config.channels}]"
        dtype = str(frames.dtype).removeprefix("torch.")
        return ParameterError(f"frames is {dtype} {list(frames.shape)}, but must be {wanted}")


@contextmanager
def _evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Without dropout; afterwards every layer has its mode again."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _not_images(value: object) -> ParameterError:
    kind = type(value).__name__
    return ParameterError(f"frames is of type {kind}, but must be NumPy arrays or torch tensors, one or several")


def normalise(frames: Tensor) -> Tensor:
    """From uint8 frames to float32 in [-1, 1]. Floating-point frames must be in [-1, 1] already and are returned as
    they are."""
    return frames if frames.is_floating_point() else frames.float().mul_(2 / 255).sub_(1)


def _split(maps: Tensor, lengths: list[int]) -> Iterator[Tensor]:
    """The sequences of [M, ...] as [N, T, ...], neighbours of one length together, repeated to 16 frames if shorter."""
    start = 0
    while lengths:
        length = lengths[0]
        count = next((i for i, other in enumerate(lengths) if other != length), len(lengths))
        lengths = lengths[count:]
        sequences = maps[start : start + count * length].view(count, length, *maps.shape[1:])
        start += count * length
        if length < MIN_FRAMES:
            sequences = sequences[:, torch.arange(MIN_FRAMES, device=maps.device) % length]
        yield sequences


def _convolution(inputs: int, outputs: int, kernel_px: int) -> nn.Conv2d:
    convolution = nn.Conv2d(inputs, outputs, kernel_px, padding="same", bias=False)
    initialise_convolution(convolution.weight)
    convolution.weight.data = convolution.weight.data.contiguous(memory_format=torch.channels_last)
    return convolution
