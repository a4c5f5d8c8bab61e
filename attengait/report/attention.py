"""A picture of what a network attends to: patch by patch in each layer, and part by part along the body.

Attention is shown relative to even attention: 1 means that a patch or part counts as much as if all counted alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from attengait.kernels.windows.clips import BINS, SIDE
from attengait.model.attention import PatchAttention
from attengait.model.config import FRAME_PIXELS
from attengait.model.net import AttenGait
from attengait.model.pyramids import PARTS_PER_PYRAMID
from attengait.report.figure import as_it_is, new_figure, save_figure

Float64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """The attention of one layer of the backbone."""

    patches: Float64
    """[S, S], from the top left."""
    size_px: int
    """Of the layer's map, whose pixels the patches share out."""

    def picture(self) -> Float64:
        """The attention of each pixel of a frame, [64, 64]. A pixel of a smaller map stands for several of the
        frame."""
        factor = FRAME_PIXELS // self.size_px
        map_px = np.kron(self.patches, np.ones((3, 3)))[: self.size_px, : self.size_px]
        return np.kron(map_px, np.ones((factor, factor)))

    def __str__(self) -> str:
        side = len(self.patches)
        return f"map {self.size_px} x {self.size_px}, {side} x {side} patches: {_range(self.patches)} of even attention"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention:
    """What a network attends to."""

    layers: tuple[Layer, ...]
    """From the first to the last."""
    parts: dict[str, Float64]
    """By the place in the network, [16, 5]: rows of the body from the top, and bins of 1, 2, 4, 8 and 16 rows. In the
    temporal pyramid a bin has as many frames as rows."""


@torch.no_grad()
def attention_of(network: AttenGait) -> Attention:
    """Read the attention of a network, without dropout."""
    is_even = network.config.attention_softmax

    def relative(module: torch.nn.Module) -> Tensor:
        was_training = module.training
        scalars: Tensor = module.eval().scalars()  # type: ignore[operator]
        module.train(was_training)
        return scalars.double().cpu() * (len(scalars) if is_even else 1)

    layers = []
    for module in network.backbone.attentions:
        assert isinstance(module, PatchAttention)
        side = module.patches_per_side
        layers.append(Layer(patches=relative(module).view(side, side).numpy(), size_px=module.size_px))
    parts = {
        "spatial pyramid": _along_the_body(relative(network.spatial_attention)),
        "temporal pyramid": _along_the_body(relative(network.temporal_attention)),
    }
    for name, module in (("parts", network.part_attention), ("embedding", network.embedding_attention)):
        spatial, temporal = relative(module).split(PARTS_PER_PYRAMID)  # type: ignore[no-untyped-call]
        parts |= {f"{name}, spatial": _along_the_body(spatial), f"{name}, temporal": _along_the_body(temporal)}
    return Attention(layers=tuple(layers), parts=parts)


def draw_attention(attention: Attention, pictures: Sequence[tuple[str, NDArray[np.uint8]]], out: Path) -> None:
    """Write a PNG: a row for each picture with the attention of each layer over it, and a row for the parts.

    Args:
        attention: of a network.
        pictures: names and mean pictures, uint8 [64, 64, 3] in red, green, blue.
        out: the PNG.

    Raises AttenGaitError where matplotlib is not installed, or `out` cannot be written.
    """
    columns, rows = max(len(attention.layers), len(attention.parts)), len(pictures)
    figure = new_figure(1.7 * columns + 1, 2.0 * rows + 2.6)
    panels = figure.subplots(rows + 1, columns, squeeze=False)
    for axes in panels.flat:
        axes.set_axis_off()
    values = [layer.patches for layer in attention.layers] + list(attention.parts.values())
    reach = max(1e-3, *(float(np.abs(each - 1).max()) for each in values))
    look: dict[str, Any] = {"cmap": "coolwarm", "vmin": 1 - reach, "vmax": 1 + reach}
    for (name, picture), of_row in zip(pictures, panels, strict=False):
        for number, (layer, axes) in enumerate(zip(attention.layers, of_row, strict=False), 1):
            axes.imshow(picture)
            shown = axes.imshow(layer.picture(), alpha=0.55, **look)
            axes.set_title(f"layer {number}\n{_range(layer.patches)}" if axes in panels[0] else "", fontsize=7)
        of_row[0].text(
            -0.08, 0.5, as_it_is(name), rotation=90, fontsize=7, ha="right", va="center", transform=of_row[0].transAxes
        )
    for (name, table), axes in zip(attention.parts.items(), panels[-1], strict=False):
        axes.set_axis_on()
        axes.imshow(table, aspect="auto", **look)
        axes.set_xticks(range(len(BINS)), [str(b) for b in BINS], fontsize=6)
        axes.set_yticks([0, SIDE - 1], ["head", "feet"], fontsize=6)
        axes.set_title(f"{name}\n{_range(table)}", fontsize=7)
        axes.set_xlabel("rows of a bin", fontsize=6)
    figure.colorbar(shown, ax=panels, label="1: even attention", shrink=0.6)
    save_figure(figure, out)


def _along_the_body(parts: Tensor) -> Float64:
    """The 31 parts of a pyramid as [16 rows of the map, 5 bins]."""
    bins = torch.split(parts, [SIDE // b for b in BINS])
    columns = [of_bin.repeat_interleave(b) for of_bin, b in zip(bins, BINS, strict=True)]
    table: Float64 = torch.stack(columns, 1).numpy()
    return table


def _range(values: Float64) -> str:
    return f"{values.min():.2f} to {values.max():.2f}"
