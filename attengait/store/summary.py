"""What a store holds, in numbers."""

from collections import Counter
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from attengait.sampling.selection import PART
from attengait.store.digest import KEY
from attengait.store.store import Store


def summarise(store: Store) -> dict[str, Any]:
    """A JSON-ready summary: counts, sizes in bytes on disk and unpacked, layout, recipe, versions.

    `walks` and `views` give the number of sequences for each, and so does `parts` where the data set has parts. `bytes`
    is None for a store behind a URL. `digest` is None for a store without one, whose names, labels and attributes have
    no checksum.
    """
    sequences, layout, attributes = store.sequences, store.layout, store.attributes
    lengths = sequences.length.tolist()
    return {
        "path": str(store.location),
        **{key: attributes.get(key) for key in ("format", "version", "dataset", "modality", "encoding")},
        **{key: value for key, value in attributes.items() if key.startswith("encoding_")},
        **{key: value for key, value in attributes.items() if key == "frames_from"},
        "subjects": len(set(sequences.subject.tolist())),
        "sequences": len(sequences),
        "frames": store.num_frames,
        "shortest": min(lengths, default=0),
        "longest": max(lengths, default=0),
        "walks": _counted(sequences.walk),
        "views": _counted(sequences.view),
        **({"parts": _counted(sequences.extra[PART])} if PART in sequences.extra else {}),
        "frame_shape": list(store.frame_shape),
        "codec": store.codec,
        "chunk_frames": store.chunk_frames,
        "shard_frames": store.shard_frames,
        "shards": layout.num_shards,
        "bytes": _bytes_of(store.location.path),
        "unpacked_bytes": store.num_frames * layout.frame_bytes,
        **{key: attributes.get(key) for key in ("recipe", "versions", "source")},
        "digest": attributes.get(KEY, {}).get("sha256"),
    }


def _counted(column: NDArray[Any]) -> dict[str, int]:
    """How often each name is there, by name."""
    return dict(sorted(Counter(map(str, column.tolist())).items()))


def _bytes_of(folder: Path | None) -> int | None:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) if folder is not None else None
