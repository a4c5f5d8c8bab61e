"""Opens a finished store. Everything that may be wrong with it has its own one-sentence error."""

from pathlib import Path
from typing import Any, Protocol

from attengait.errors import AttenGaitError, ParameterError
from attengait.store.digest import has_digest, is_right
from attengait.store.layout import FORMAT, VERSION
from attengait.store.location import Location, Where
from attengait.store.metadata import MAX_METADATA_BYTES, check_group, parse_document, parse_frames
from attengait.store.sequences import read_files, read_sequences
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
        data = location.read("zarr.json", max_bytes=MAX_METADATA_BYTES)
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
    server a fixed number of small files is read, whatever the size of the store. The digest of the attributes and
    columns is checked, where the store has one (attengait.store.digest). Frames are not looked at: each sequence is
    checked when it is first read.

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
    head = read_files(location, dict.fromkeys(["zarr.json", "frames/zarr.json"], MAX_METADATA_BYTES))
    if "zarr.json" not in head:
        raise _nothing_there(location)
    attributes = _root_attributes(location, head["zarr.json"])
    if attributes.get("format") != FORMAT:
        raise AttenGaitError(f"{location} is a Zarr group, but not an AttenGait store (its format is not {FORMAT!r})")
    if type(attributes.get("version")) is not int or attributes["version"] != VERSION:
        raise AttenGaitError(
            f"{location} is a store of version {attributes.get('version')!r}, but this attengait reads version "
            f"{VERSION}"
        )
    for key in ("dataset", "modality", "encoding"):
        if not isinstance(attributes.get(key, ""), str):
            raise AttenGaitError(f"{location / 'zarr.json'} is damaged: the attribute {key} is no text")
    if "frames/zarr.json" not in head:
        raise AttenGaitError(
            f"{location}: the array frames cannot be opened: {location / 'frames/zarr.json'} is missing"
        )
    layout, must_have_digest = parse_frames(location / "frames/zarr.json", head["frames/zarr.json"])
    if has_digest(attributes) != must_have_digest:
        raise AttenGaitError(
            f"{location / ('zarr.json' if must_have_digest else 'frames/zarr.json')} is damaged: it lacks the digest"
        )
    sequences = read_sequences(location, _own_columns(location, attributes))
    if must_have_digest and not is_right(attributes, layout, sequences):
        raise AttenGaitError(
            f"{location} was changed after it was made, or is damaged: its attributes and the columns of its sequences "
            f"do not fit the digest in {location / 'zarr.json'}"
        )
    return Store(location=location, attributes=attributes, layout=layout, sequences=sequences)


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
    document = parse_document(location / "zarr.json", data)
    attributes = document.get("attributes")
    if not isinstance(attributes, dict) or document.get("node_type") != "group":
        raise AttenGaitError(f"{location} is not a Zarr v3 group")
    check_group(location / "zarr.json", document)
    return attributes
