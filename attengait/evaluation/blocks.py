"""Distances of many probes to a large gallery, a block of whole rows at a time.

All distances of 24,000 probes to 250,000 gallery items would take 48 GB. Here a block of probes is compared with the
whole gallery, used, and forgotten. The features are gathered from where they lie, a tile at a time, and never copied
as a whole. So the memory beside them is about `BLOCK_BYTES`.

The last bits of a matrix product depend on where a row stands in it. So each different embedding is computed once, in
an order that depends on the values alone, and a block is made of tiles of a fixed size. The same embedding has the
same distances wherever it stands. Neither the order of the rows nor the size of the blocks changes a bit.

With a torch device, the tiles are computed there, and the tables are tensors on it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from attengait.evaluation.distances import DISTANCES, Float64, Tile, centre_of

if TYPE_CHECKING:
    import torch

Int64 = NDArray[np.int64]

BLOCK_BYTES = 2**30
"""Of the distances that are held at once; always at least those of one tile of probes."""
PROBE_TILE = 512
GALLERY_TILE = 2048
_CENTRE_ITEMS = 256
"""Of the gallery, whose median is the centre."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """The distances of some probes to the whole gallery."""

    probes: Int64
    """[p]: which probes."""
    row: Int64
    """[p]: the row of the table that each probe has. Probes with the same embedding share one."""
    table: Tile
    """Float64 [b, u]: distances to the different items. The next block has the same memory."""


class Rows(Protocol):
    """Distances of n probes to m gallery items, block by block."""

    @property
    def column(self) -> Int64:
        """[m]: the column of a table that each item has. Items with the same embedding share one."""
        ...

    @property
    def num_probes(self) -> int:
        """The probes of all blocks."""
        ...

    def blocks(self) -> Iterator[Block]:
        """Each probe is in one block."""
        ...


def same_embeddings(features: NDArray[np.floating]) -> Int64:
    """[n]: a number for each embedding [n, P, D], the same for equal ones, in an order that the values decide."""
    # -0.0 becomes 0.0, so that equal values are equal bytes.
    digests = [blake2b((row + 0.0).tobytes(), digest_size=16).digest() for row in features]
    order = {digest: number for number, digest in enumerate(sorted(set(digests)))}
    return np.array([order[digest] for digest in digests], np.int64)


class DistanceRows:
    """Rows of a named distance between some of the embeddings [N, P, D] and others."""

    def __init__(
        self,
        features: NDArray[np.floating],
        same: Int64,
        probes: Int64,
        gallery: Int64,
        name: str,
        *,
        device: "torch.device | None" = None,
    ) -> None:
        """`same` [N] numbers the different embeddings, `probes` [n] and `gallery` [m] are rows of the features."""
        self._features = features
        self._distance = DISTANCES[name]
        _, first, self.column = np.unique(same[gallery], return_index=True, return_inverse=True)
        self._items: Int64 = gallery[first]
        _, first, self._row_of_probe = np.unique(same[probes], return_index=True, return_inverse=True)
        self._probes: Int64 = probes[first]
        self._device = device
        self._centre = self._middle() if self._distance.is_centred else np.zeros(features.shape[1:])
        self._kept: Any = None
        """The gallery on the device, if it fits."""

    @property
    def num_probes(self) -> int:
        """The probes of all blocks."""
        return len(self._row_of_probe)

    @property
    def block_probes(self) -> int:
        """How many different probes a block has, by the memory that is free now."""
        return max(PROBE_TILE, self._block_bytes() // (8 * len(self._items)) // PROBE_TILE * PROBE_TILE)

    def blocks(self, block_probes: int | None = None) -> Iterator[Block]:
        """Each probe is in one block, the probes in the order of their embeddings."""
        order = np.argsort(self._row_of_probe, kind="stable")
        rows_sorted = self._row_of_probe[order]
        size = self.block_probes if block_probes is None else block_probes
        memory: Tile = np.empty((min(size, len(self._probes)), len(self._items)))
        if self._device is not None:
            memory = self._on_device(memory)
        for start in range(0, len(self._probes), size):
            stop = min(start + size, len(self._probes))
            begin, end = np.searchsorted(rows_sorted, [start, stop])
            table = memory[: stop - start]
            self._fill(table, start)
            yield Block(probes=order[begin:end], row=rows_sorted[begin:end] - start, table=table)

    def _fill(self, table: Tile, start: int) -> None:
        """Compute the distances [b, u] of the probes from `start` on."""
        stop = start + len(table)
        prepare, between = self._distance.prepare, self._distance.between
        firsts = range(start, stop, PROBE_TILE)
        tiles = [prepare(self._tile(self._probes, i, min(i + PROBE_TILE, stop))) for i in firsts]
        for j in range(0, len(self._items), GALLERY_TILE):
            items = prepare(self._item_tile(j))
            for i, tile in zip(firsts, tiles, strict=True):
                distances = between(tile, items)
                k = i - start
                table[k : k + distances.shape[0], j : j + distances.shape[1]] = distances

    def _tile(self, rows: Int64, start: int, stop: int) -> Tile:
        """Float64 [rows, P, D] without the centre."""
        return self._on_device(np.subtract(self._features[rows[start:stop]], self._centre, dtype=np.float64))

    def _item_tile(self, start: int) -> Tile:
        if self._device is None:
            return self._tile(self._items, start, start + GALLERY_TILE)
        import torch

        if self._kept is None:
            self._kept = self._keep()
        if self._kept is False:
            return self._tile(self._items, start, start + GALLERY_TILE)
        centre = torch.from_numpy(self._centre).to(self._device)
        return self._kept[start : start + GALLERY_TILE].to(torch.float64) - centre

    def _keep(self) -> Any:
        """The gallery on the device, or False where it would take more than a third of what is free there."""
        import torch

        assert self._device is not None
        num_bytes = len(self._items) * self._features[0].nbytes
        if self._device.type == "cuda" and num_bytes > torch.cuda.mem_get_info(self._device)[0] / 3:
            return False
        kept = torch.empty((len(self._items), *self._features.shape[1:]), device=self._device)
        for j in range(0, len(self._items), GALLERY_TILE):
            kept[j : j + GALLERY_TILE] = torch.from_numpy(self._features[self._items[j : j + GALLERY_TILE]])
        return kept

    def _block_bytes(self) -> int:
        if self._device is None or self._device.type != "cuda":
            return BLOCK_BYTES
        import torch

        # Beside the table there are a comparison of each of its values, and the gallery.
        return max(BLOCK_BYTES, int(torch.cuda.mem_get_info(self._device)[0]) // 8)

    def _middle(self) -> Float64:
        """Of some items, in equal steps of an order that the values decide."""
        step = -(-len(self._items) // _CENTRE_ITEMS)
        return centre_of(self._features[self._items[::step]])

    def _on_device(self, array: Float64) -> Tile:
        if self._device is None:
            return array
        import torch

        return torch.from_numpy(array).to(self._device)
