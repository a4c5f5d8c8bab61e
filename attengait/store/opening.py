"""Opening a finished store, with one sentence for everything that may be wrong with it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zarr

from attengait.errors import AttenGaitError
from attengait.store.layout import FORMAT, VERSION, FrameLayout, frame_layout, work_path
from attengait.store.location import Location
from attengait.store.sequences import Sequences, read_sequences
from attengait.store.workfolder import progress_of

if TYPE_CHECKING:
    from attengait.store.reader import ClipReader


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """A finished store: what it holds and where; its frames are read through `reader()`."""

    location: Location
    attributes: dict[str, Any]
    """dataset, modality, encoding, recipe, versions, source; see the README."""
    layout: FrameLayout
    sequences: Sequences

    @property
    def path(self) -> Path:
        """The folder of a store on this machine; AttenGaitError for one behind a URL."""
        if self.location.path is None:
            raise AttenGaitError(f"{self.location} is not a folder on this machine: copy the store to one first")
        return self.location.path

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        """Height, width, channels."""
        return self.layout.frame_shape

    @property
    def num_frames(self) -> int:
        """Frames in all sequences; the array `frames` is longer, by the unused tails of its shards."""
        return int(self.sequences.length.sum())

    @property
    def chunk_frames(self) -> int:
        """Frames in one chunk, the unit of compression."""
        return self.layout.chunk_frames

    @property
    def shard_frames(self) -> int:
        """Frames in one shard file."""
        return self.layout.shard_frames

    @property
    def codec(self) -> str:
        """none, lz4 or zstd."""
        return self.layout.codec

    def reader(self) -> "ClipReader":
        """The fastest reader for this store; close it after use."""
        from attengait.store.reader import open_reader

        return open_reader(self)


def is_finished(path: Path) -> bool:
    """Whether `path` is a finished store of any version."""
    try:
        return _root_attributes(path).get("format") == FORMAT
    except AttenGaitError:
        return False


def open_store(path: str | Path) -> Store:
    """Open a finished store.

    Raises AttenGaitError when there is none, when it is not finished, of another version, not ours, or damaged in its
    metadata or columns. Frames are not looked at: see `verify`.
    """
    path = Path(path)
    progress = progress_of(work_path(path))
    if progress is not None and not (path / "zarr.json").exists():
        raise AttenGaitError(
            f"{path} is not finished ({progress[0]} of {progress[1]} shards): "
            "run the same `attengait preprocess` again to continue"
        )
    attributes = _root_attributes(path)
    if attributes.get("format") != FORMAT:
        raise AttenGaitError(f"{path} is a Zarr group, but not an AttenGait store (its format is not {FORMAT!r})")
    if attributes.get("version") != VERSION:
        raise AttenGaitError(
            f"{path} is a store of version {attributes.get('version')}, but this attengait reads version {VERSION}"
        )
    try:
        layout = frame_layout(zarr.open_array(path / "frames", mode="r"))
    except AttenGaitError as error:
        raise AttenGaitError(f"{path}: {error}") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AttenGaitError(f"{path}: the array frames cannot be opened: {error}") from error
    return Store(location=Location.parse(path), attributes=attributes, layout=layout, sequences=read_sequences(path))


def _root_attributes(path: Path) -> dict[str, Any]:
    try:
        metadata = json.loads((path / "zarr.json").read_bytes())
    except NotADirectoryError:
        raise AttenGaitError(f"{path} is a file, but a store is a folder") from None
    except FileNotFoundError:
        if not path.exists():
            raise AttenGaitError(f"{path} does not exist") from None
        raise AttenGaitError(f"{path} is not a store: it has no zarr.json") from None
    except OSError as error:
        raise AttenGaitError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise AttenGaitError(f"{path / 'zarr.json'} is damaged: {error}") from error
    attributes = metadata.get("attributes") if isinstance(metadata, dict) else None
    if not isinstance(attributes, dict) or metadata.get("node_type") != "group":
        raise AttenGaitError(f"{path} is not a Zarr v3 group")
    return attributes
