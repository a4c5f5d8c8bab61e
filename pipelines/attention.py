"""A network and a store put together: what the network attends to, over pictures of the store."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from attengait.errors import require
from attengait.model.config import FRAME_PIXELS
from attengait.model.loading import load_model
from attengait.pipelines.channels import channels_for
from attengait.pipelines.embed import check_pictures
from attengait.report.attention import Attention, attention_of, draw_attention
from attengait.report.contact_sheet import painter
from attengait.report.figure import check_figure
from attengait.store import Store, open_store
from attengait.store.description import channel_names
from attengait.store.opening import AnyStore

MEAN_SEQUENCES = 64
"""The mean picture of a store is that of so many sequences, evenly picked."""


def show_attention(model: str | Path, out: str | Path, *, store: AnyStore | None = None, rows: int = 3) -> Attention:
    """Draw what a network attends to. The same as `attengait attention`.

    Args:
        model: a run, or a file of weights.
        out: the PNG to write.
        store: where the pictures below the attention come from: the mean picture, and those of some sequences. Without
            one the background is white.
        rows: how many sequences, evenly picked from the store.

    Raises:
        ParameterError: an `out` that is no PNG, or `rows` below 0.
        AttenGaitError: a model or store that cannot be read, a store that does not fit the model, a file that cannot be
            written, or matplotlib is not installed.

    >>> len(show_attention("run", "attention.png").layers)
    7
    """
    out = Path(out)
    check_figure(out, "out", (model,))
    require(rows >= 0, "rows", rows, "at least 0")
    network = load_model(model)
    attention = attention_of(network)
    if store is None:
        pictures = [("", np.full((FRAME_PIXELS, FRAME_PIXELS, 3), 255, np.uint8))]
    else:
        opened = open_store(store)
        check_pictures(network.config, Path(model), opened)
        pictures = list(_pictures(opened, channels_for(network.config, opened), rows))
    draw_attention(attention, pictures, out)
    return attention


def _pictures(store: Store, channels: list[int], rows: int) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """The mean picture of the store and those of some sequences, by name; uint8 [64, 64, 3]."""
    names = channel_names(store.attributes, store.frame_shape[2])
    visible = painter([names[i] for i in channels], store.attributes, str(store.location))
    num_sequences = len(store.sequences)
    chosen = np.unique(np.linspace(0, num_sequences - 1, min(MEAN_SEQUENCES, num_sequences)).round().astype(int))

    def mean_picture(index: int) -> NDArray[np.float64]:
        start, length = store.sequences.start[[index]], store.sequences.length[[index]]
        (clip,) = reader.read_clips(start, length)
        # Of a silhouette and flow, the flow, which is drawn below the silhouette.
        frames = visible(np.ascontiguousarray(clip[..., channels]))[:, -FRAME_PIXELS:]
        mean: NDArray[np.float64] = frames.mean(0)
        return mean

    with store.reader() as reader:
        mean = np.mean([mean_picture(index) for index in chosen], axis=0)
        yield f"mean of {len(chosen)}", mean.round().astype(np.uint8)
        for index in np.unique(np.linspace(0, num_sequences - 1, rows).round().astype(int)) if rows else ():
            yield store.sequences.name(int(index)), mean_picture(index).round().astype(np.uint8)
