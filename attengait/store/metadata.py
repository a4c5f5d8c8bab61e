"""The zarr.json documents of a store: read within bounds, and compared with what the layout would write.

Nothing in a document is free: from the shape and the codec of an array, all of the rest follows. So a document that
differs in anything, be it one flipped bit, is refused with a sentence that names the file and the place in it. Sizes
are checked before memory is taken for them.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from attengait.errors import AttenGaitError
from attengait.store.layout import CODECS, DIGEST_MARK, FrameLayout, check_sizes
from attengait.system import documents

MAX_METADATA_BYTES = 2**20
"""A zarr.json of a store has less than 10 kB."""
MAX_DEPTH = 32
"""Of lists and objects in a zarr.json."""
MAX_COLUMN_BYTES = 2**28
"""Of a column's file and of what it is unpacked to; a million sequences take about 30 MB."""

_COMPRESSORS: dict[str, list[dict[str, Any]]] = {
    "none": [],
    "lz4": [
        {
            "name": "blosc",
            "configuration": {
                "typesize": 1,
                "cname": "lz4",
                "clevel": 5,
                "shuffle": "noshuffle",
                "blocksize": 0,
            },
        },
        {"name": "crc32c"},
    ],
    "zstd": [{"name": "zstd", "configuration": {"level": 3, "checksum": False}}, {"name": "crc32c"}],
}
"""What `CODECS` are called in a document."""
assert _COMPRESSORS.keys() == CODECS.keys()
_LITTLE_ENDIAN = {"name": "bytes", "configuration": {"endian": "little"}}
_FREE = ("level", "clevel", "shuffle", "blocksize", "typesize")
"""How hard a chunk was compressed; whoever unpacks it need not know."""
_FILL_VALUES: dict[str, Any] = {"string": "", "float64": 0.0}


def parse_document(place: object, data: bytes) -> dict[str, Any]:
    """The JSON object in a zarr.json. Raises AttenGaitError, naming its `place`, where it is none."""
    try:
        document = documents.parse_document(data)
    except ValueError as error:
        raise AttenGaitError(f"{place} is damaged: {error}") from None
    if _is_deep(document):
        raise AttenGaitError(f"{place} is damaged: its values are nested too deeply")
    return document


def parse_frames(place: object, data: bytes) -> tuple[FrameLayout, bool]:
    """The layout that the document of `frames` gives, and whether the store must have a digest.

    Raises AttenGaitError, naming its `place`, where a size is out of range or anything is not as `frames_document` has
    it.
    """
    found = _whole(parse_document(place, data))
    shape = _shape_at(place, found, "shape")
    shard_shape = _shape_at(place, found, "chunk_grid", "configuration", "chunk_shape")
    chunk_shape = _shape_at(place, found, "codecs", 0, "configuration", "chunk_shape")
    codec = _codec_of(place, _at(found, "codecs", 0, "configuration", "codecs"))
    # A shape that is not made of whole frames, chunks and shards differs from the document of the layout.
    layout = FrameLayout(
        num_shards=max(1, shape[0] // shard_shape[0]),
        shard_frames=shard_shape[0],
        chunk_frames=chunk_shape[0],
        frame_shape=(shape[1], shape[2], shape[3]),
        codec=codec,
    )
    if layout.shard_frames % layout.chunk_frames:
        raise AttenGaitError(
            f"{place}: shards of {layout.shard_frames} frames have no whole chunks of {chunk_shape[0]}"
        )
    try:
        check_sizes(layout)
    except AttenGaitError as error:
        raise AttenGaitError(f"{place}: {error}") from None
    has_digest = bool(found["attributes"])
    _compare(place, found, frames_document(layout, has_digest=has_digest))
    return layout, has_digest


def parse_column(place: object, data: bytes, dtypes: Sequence[Any]) -> tuple[Any, int]:
    """The type, one of `dtypes`, and the number of entries that the document of a column gives.

    Raises AttenGaitError, naming its `place`, where anything is not as `column_document` has it.
    """
    found = _whole(parse_document(place, data))
    names = {_type_name(dtype): dtype for dtype in dtypes}
    name = found.get("data_type")
    if not isinstance(name, str) or name not in names:
        raise AttenGaitError(f"{place}: its data_type is {_short(name)}, but must be {' or '.join(names)}")
    (length,) = _shape_at(place, found, "shape", num_axes=1, least=0)
    least_bytes = 4 if name == "string" else np.dtype(names[name]).itemsize
    if length * least_bytes > MAX_COLUMN_BYTES:
        raise AttenGaitError(f"{place}: a column of {length} entries is longer than {MAX_COLUMN_BYTES} bytes hold")
    _compare(place, found, column_document(names[name], length))
    return names[name], length


def frames_document(layout: FrameLayout, *, has_digest: bool) -> dict[str, Any]:
    """The document of `frames`, as zarr-python writes it."""
    sharding = {
        "chunk_shape": [layout.chunk_frames, *layout.frame_shape],
        "codecs": [{"name": "bytes"}, *_COMPRESSORS[layout.codec]],
        "index_codecs": [_LITTLE_ENDIAN, {"name": "crc32c"}],
        "index_location": "end",
    }
    return _array_document(
        shape=[layout.num_frames, *layout.frame_shape],
        chunk_shape=[layout.shard_frames, *layout.frame_shape],
        data_type="uint8",
        codecs=[{"name": "sharding_indexed", "configuration": sharding}],
        attributes=DIGEST_MARK if has_digest else {},
    )


def column_document(dtype: Any, length: int) -> dict[str, Any]:
    """The document of a column, as zarr-python writes it."""
    name = _type_name(dtype)
    first = {"name": "vlen-utf8", "configuration": {}} if name == "string" else _LITTLE_ENDIAN
    return _array_document(
        shape=[length],
        chunk_shape=[max(1, length)],
        data_type=name,
        codecs=[first, *_COMPRESSORS["zstd"]],
        attributes={},
    )


def check_group(place: object, document: dict[str, Any]) -> None:
    """Raise AttenGaitError, naming its `place`, unless a document is that of a group, whatever its attributes."""
    found = {key: value for key, value in document.items() if key != "attributes"}
    _compare(place, found, {"zarr_format": 3, "node_type": "group"})


def _array_document(
    *, shape: list[int], chunk_shape: list[int], data_type: str, codecs: list[Any], attributes: dict[str, Any]
) -> dict[str, Any]:
    return {
        "shape": shape,
        "data_type": data_type,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunk_shape}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": _FILL_VALUES.get(data_type, 0),
        "codecs": codecs,
        "attributes": attributes,
        "zarr_format": 3,
        "node_type": "array",
        "storage_transformers": [],
    }


def _is_deep(document: dict[str, Any]) -> bool:
    """Whether values are nested deeper than `MAX_DEPTH`, without recursion."""
    level: list[Any] = [document]
    for _ in range(MAX_DEPTH):
        inner = [value.values() if isinstance(value, dict) else value for value in level]
        level = [each for values in inner for each in values if isinstance(each, (dict, list))]
    return bool(level)


def _whole(document: dict[str, Any]) -> dict[str, Any]:
    """A document with what may be left out."""
    whole = {"attributes": {}, "storage_transformers": [], **document}
    if whole.get("dimension_names", "") is None:
        del whole["dimension_names"]
    return whole


def _type_name(dtype: Any) -> str:
    return "string" if isinstance(dtype, np.dtypes.StringDType) else str(np.dtype(dtype))


def _codec_of(place: object, found: Any) -> str:
    names = [each.get("name") if isinstance(each, dict) else None for each in found] if isinstance(found, list) else []
    for codec, compressors in _COMPRESSORS.items():
        if names == ["bytes", *(each["name"] for each in compressors)]:
            return codec
    raise AttenGaitError(f"{place}: the codecs of the chunks are {_short(names)}, which is none of {', '.join(CODECS)}")


def _at(document: Any, *path: str | int) -> Any:
    """What lies at a path; None where there is no such place."""
    for key in path:
        try:
            document = document[key]
        except (KeyError, IndexError, TypeError):
            return None
    return document


def _shape_at(place: object, document: Any, *path: str | int, num_axes: int = 4, least: int = 1) -> list[int]:
    shape = _at(document, *path)
    is_shape = isinstance(shape, list) and len(shape) == num_axes
    if not is_shape or any(type(size) is not int or not least <= size < 2**63 for size in shape):
        raise AttenGaitError(
            f"{place}: {_text_of(path)} is {_short(shape)}, but must be {num_axes} whole numbers from {least} on"
        )
    return shape  # type: ignore[no-any-return]


def _compare(place: object, found: Any, expected: Any) -> None:
    if difference := _difference(found, expected, ()):
        path, there, here = difference
        raise AttenGaitError(
            f"{place} is damaged or not of a store: {_text_of(path)} is {_short(there)}, but must be {_short(here)}"
        )


def _difference(
    found: Any, expected: Any, path: tuple[str | int, ...]
) -> tuple[tuple[str | int, ...], Any, Any] | None:
    """The first place where two documents differ, and what each has there."""
    if type(found) is not type(expected):
        return path, found, expected
    if isinstance(expected, dict):
        keys: list[Any] = [*expected, *(key for key in found if key not in expected)]
    elif isinstance(expected, list) and len(found) == len(expected):
        keys = list(range(len(expected)))
    else:
        return None if found == expected else (path, found, expected)
    for key in keys:
        if key in _FREE and key in found and isinstance(found[key], (int, str)):
            continue
        if isinstance(expected, dict) and not (key in found and key in expected):
            return (*path, key), found.get(key, _NOTHING), expected.get(key, _NOTHING)
        if difference := _difference(found[key], expected[key], (*path, key)):
            return difference
    return None


class _Nothing:
    def __repr__(self) -> str:
        return "not there"


_NOTHING = _Nothing()


def _text_of(path: Sequence[str | int]) -> str:
    """Such as codecs[0].configuration.index_location."""
    text = "".join(
        f"[{key}]" if isinstance(key, int) else f".{key if key.isidentifier() else _short(key)}" for key in path
    )
    return text.removeprefix(".") or "it"


def _short(value: object) -> str:
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
