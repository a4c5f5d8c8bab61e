"""Opens a finished store. Everything that may be wrong with it has its own one-sentence error."""

import json
from pathlib import Path
from typing import Any, Protocol

from attengait.errors import AttenGaitError, ParameterError
from attengait.store.layout import FORMAT, VERSION, frame_layout
from attengait.store.location import Location, Where
from attengait.store.sequences import array_in, read_files, read_sequences
from attengait.store.store import Store
from attengait.store.workfolder import progress_of


class HasLocation(Protocol):
    """What says where a store is, such as the summary of `attengait.preprocess`."""

    @property
    def location(self) -> Location:
        """The store."""
        ...


AnyStore = Where | Store | HasLocation
"""A path, a URL, an open store, or what says where one is."""


def is_finished(where: Where) -> bool:
    """Whether there is a finished store, of any version; AttenGaitError when a server does not answer."""
    location = Location.parse(where)
    try:
        data = location.read("zarr.json")
    except AttenGaitError:
        if location.is_remote:
            raise
        return False
    try:
        return data is not None and _root_attributes(location, data).get("format") == FORMAT
    except AttenGaitError:
        return False


def open_store(where: AnyStore) -> Store:
    """Open a finished store: a folder, or an s3://, gs://, http:// or https:// URL.

    What `attengait.preprocess` returns is accepted, too. A store that is open already is returned as it is. From a
    server a fixed number of small files is read, whatever the size of the store. Frames are not looked at: see
    `attengait.store.verify`.

    Raises:
        AttenGaitError: there is no store, it is not finished, of another version, not ours, or damaged in its metadata
            or columns, or a server cannot be reached.
        ParameterError: a URL of another scheme, or something that is no place.

    >>> store = attengait.open_store("walkers.zarr")
    >>> store.sequences.name(0)
    '001/bg-01/000'
    """
    if isinstance(where, Store):
        return where
    place = where if isinstance(where, (str, Path, Location)) else getattr(where, "location", None)
    if not isinstance(place, (str, Path, Location)):
        raise ParameterError(
            f"store is {where!r}, but must be a path, a URL, an open store, or what attengait.preprocess returned"
        )
    location = Location.parse(place)
    head = read_files(location, ["zarr.json", "frames/zarr.json"])
    if "zarr.json" not in head:
        raise _nothing_there(location)
    attributes = _root_attributes(location, head["zarr.json"])
    if attributes.get("format") != FORMAT:
        raise AttenGaitError(f"{location} is a Zarr group, but not an AttenGait store (its format is not {FORMAT!r})")
    if attributes.get("version") != VERSION:
        raise AttenGaitError(
            f"{location} is a store of version {attributes.get('version')}, but this attengait reads version {VERSION}"
        )
    try:
        layout = frame_layout(array_in(head, "frames"))
    except AttenGaitError as error:
        raise AttenGaitError(f"{location}: {error}") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AttenGaitError(f"{location}: the array frames cannot be opened: {error}") from error
    return Store(
        location=location,
        attributes=attributes,
        layout=layout,
        sequences=read_sequences(location, _own_columns(location, attributes)),
    )


def _own_columns(location: Location, attributes: dict[str, Any]) -> list[str]:
    """Names of the columns that the data set added."""
    names = attributes.get("columns", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise AttenGaitError(f"{location}: the attribute columns is {names!r}, but must be a list of names")
    return names


def _nothing_there(location: Location) -> AttenGaitError:
    """The error for a place without a zarr.json."""
    progress = progress_of(location)
    if progress is not None:
        return AttenGaitError(
            f"{location} is not finished ({progress[0]} of {progress[1]} shards): "
            "run the command that began it again to continue"
        )
    if location.path is None:
        if location.lacks_bucket():
            return AttenGaitError(f"{location} does not exist: there is no such bucket")
        return AttenGaitError(f"{location} is not a store: there is no {location / 'zarr.json'}")
    if location.path.is_file():
        return AttenGaitError(f"{location} is a file, but a store is a folder")
    if not location.path.exists():
        return AttenGaitError(f"{location} does not exist")
    return AttenGaitError(f"{location} is not a store: it has no zarr.json")


def _root_attributes(location: Location, data: bytes) -> dict[str, Any]:
    try:
        metadata = json.loads(data)
    except ValueError as error:
        raise AttenGaitError(f"{location / 'zarr.json'} is damaged: {error}") from error
    attributes = metadata.get("attributes") if isinstance(metadata, dict) else None
    if not isinstance(attributes, dict) or metadata.get("node_type") != "group":
        raise AttenGaitError(f"{location} is not a Zarr v3 group")
    return attributes
