"""The digest of a store: a SHA-256 over what says what its frames are, in the root attributes, which are written last.

    attributes["digest"] = {"sha256": ..., "frame_numbers": ..., "frame_times": ...}

`sha256` is over lines of canonical JSON (keys sorted, no spaces, ASCII) that end in a newline each:

    the root attributes without digest.sha256
    the layout: [shards, frames of a shard, frames of a chunk, [height, width, channels], codec]
    for each column of `sequences`, by name: [name, type, [values]]

The others are each over the bytes of a column beside `frames`, little-endian. So `sha256` covers them, too; and it
covers the frames, by the CRC-32C of each sequence.

Stores of version 0.1.0 have no digest: their names, labels and attributes have no checksum.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attengait.errors import AttenGaitError
from attengait.store.layout import FrameLayout
from attengait.store.sequences import Sequences

KEY = "digest"
NO_DIGEST = (
    "names, labels and attributes of this store have no checksum, because it was made by version 0.1.0 or soon after"
)


def with_digest(
    attributes: Mapping[str, Any],
    layout: FrameLayout,
    sequences: Sequences,
    frame_columns: Mapping[str, NDArray[Any]],
) -> dict[str, Any]:
    """The root attributes of a finished store, with its digest."""
    columns = {name: column_sha256(column) for name, column in frame_columns.items()}
    whole: dict[str, Any] = json.loads(json.dumps(attributes)) | {KEY: columns}
    whole[KEY] = {"sha256": _sha256(whole, layout, sequences), **columns}
    return whole


def has_digest(attributes: Mapping[str, Any]) -> bool:
    """Whether a store has a digest."""
    return KEY in attributes


def is_right(attributes: Mapping[str, Any], layout: FrameLayout, sequences: Sequences) -> bool:
    """Whether the digest in the root attributes is that of the attributes, the layout and the columns."""
    digest = attributes[KEY]
    if not isinstance(digest, dict):
        return False
    columns = {name: value for name, value in digest.items() if name != "sha256"}
    return bool(digest.get("sha256") == _sha256({**attributes, KEY: columns}, layout, sequences))


def check_frame_column(place: str, attributes: Mapping[str, Any], name: str, column: NDArray[Any] | None) -> None:
    """Raise AttenGaitError unless a column beside `frames` is the one that the digest is of, or there is no digest.

    `column` is None where the store lacks it.
    """
    if has_digest(attributes) and attributes[KEY].get(name) != (None if column is None else column_sha256(column)):
        raise AttenGaitError(f"{place}: the column {name} {'is missing' if column is None else 'fails its checksum'}")


def column_sha256(column: NDArray[Any]) -> str:
    """Of the little-endian bytes of a column of numbers."""
    return hashlib.sha256(column.astype(column.dtype.newbyteorder("<"), copy=False).tobytes()).hexdigest()


def _sha256(attributes: Mapping[str, Any], layout: FrameLayout, sequences: Sequences) -> str:
    digest = hashlib.sha256()
    digest.update(_line(attributes))
    shape = [layout.num_shards, layout.shard_frames, layout.chunk_frames, list(layout.frame_shape), layout.codec]
    digest.update(_line(shape))
    for name, column in sorted(sequences.columns.items()):
        kind = "string" if isinstance(column.dtype, np.dtypes.StringDType) else str(column.dtype)
        digest.update(_line([name, kind, column.tolist()]))
    return digest.hexdigest()


def _line(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode() + b"\n"
