"""What the pictures of imported or exported files show: the part of a store's attributes that other formats lack.

`export` leaves it in a small JSON file beside the pickles, so that importing them again gives an equal store. OpenGait
passes that file over, as no subject has its name.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attengait.errors import AttenGaitError, ParameterError
from attengait.kernels.pictures.encode import ENCODINGS, check_encoding
from attengait.system.documents import read_document
from attengait.system.lookup import check_name

FILE_NAME = "attengait.json"
MAX_BYTES = 1 << 20
FORMAT = "attengait-pickles"
H5_FORMAT = "attengait-h5"
VERSION = 1
OF_FILES_VERSION = 2
"""Of the description of several files in each sequence's folder."""

MODALITIES: dict[str, int | None] = {"flow": None, "silhouette": 1, "silhouette+flow": None, "rgb": 3, "other": None}
"""What pictures may show, with the channels that it has; None where there is a choice."""
_DEFAULT_ENCODINGS = {"silhouette": "gray", "rgb": "rgb", "other": "unknown"}
_OF_FLOW = {"flow": "", "silhouette+flow": "gray+"}
"""Modalities with flow, and what their encoding begins with before that of the flow."""
_CHANNELS = {
    "colour": ("flow-r", "flow-g", "flow-b"),
    "uv": ("flow-u", "flow-v"),
    "uvm": ("flow-u", "flow-v", "flow-m"),
    "gray": ("silhouette",),
    "rgb": ("rgb-r", "rgb-g", "rgb-b"),
}
"""Names of the channels of an encoding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What pictures show, and how they were made if that is known."""

    attributes: dict[str, Any]
    """Of a store: dataset, modality, encoding, and what decodes it."""
    recipe: Any = None
    """By which the exported store was made."""
    content_sha256: str | None = None
    """Of the exported store's sequences."""


def describe(
    channels: int,
    *,
    dataset: str | None = None,
    modality: str | None = None,
    encoding: str | None = None,
    exported: Description | None = None,
) -> Description:
    """The description of pictures of so many channels, by what is said of them and otherwise as they were exported.

    Pictures of one channel are silhouettes if nobody says otherwise. Raises ParameterError for what does not fit
    together, and where nobody says what the pictures show.
    """
    known = {} if exported is None else exported.attributes
    is_as_exported = bool(known) and modality in (None, known["modality"]) and encoding in (None, known["encoding"])
    modality = modality or known.get("modality") or ("silhouette" if channels == 1 else None)
    if modality is None:
        raise ParameterError(
            f"modality is missing, but must be one of {', '.join(MODALITIES)} for images of {channels} channels"
        )
    if not is_as_exported:
        check_name(MODALITIES, modality, "modality")
    if encoding is not None and modality not in _OF_FLOW and not is_as_exported:
        raise ParameterError(f"encoding is {encoding!r}, but must be left out: only flow takes it, not {modality}")
    attributes: dict[str, Any] = {}
    expected = MODALITIES.get(modality)
    if is_as_exported:
        attributes, encoding = known, str(known["encoding"])
    elif modality in _OF_FLOW:
        flow_encoding = encoding or "colour"
        check_encoding(flow_encoding)
        encoding = _OF_FLOW[modality] + flow_encoding
        attributes = dict(ENCODINGS[flow_encoding].attributes)
    else:
        encoding = _DEFAULT_ENCODINGS[modality]
    names = [name for part in encoding.split("+") for name in _CHANNELS.get(part, ())]
    expected = len(names) or expected
    if expected not in (None, channels):
        raise ParameterError(
            f"channels of the files is {channels}, but must be {expected} for modality {modality}, encoding {encoding}"
        )
    if not is_as_exported and modality == "silhouette+flow":
        attributes["channels"] = names
    named = {"dataset": dataset or known.get("dataset", "imported"), "modality": modality, "encoding": encoding}
    return Description(attributes=named | {key: attributes[key] for key in attributes if key not in named})


def description_of(attributes: dict[str, Any], content_sha256: str) -> Description:
    """The description of a store."""
    return Description(attributes=_kept(attributes), recipe=attributes.get("recipe"), content_sha256=content_sha256)


def to_json(description: Description, *, format: str = FORMAT) -> bytes:
    """The content of the file beside exported pickles, or HDF5 files."""
    return _dump({"format": format, "version": VERSION} | _content_of(description))


def to_json_of_files(descriptions: Mapping[str, Description], frames_sha256: str) -> bytes:
    """The same where each sequence's folder holds several files, by their names; with a digest of which frames."""
    files = {name: _content_of(description) for name, description in descriptions.items()}
    return _dump({"format": FORMAT, "version": OF_FILES_VERSION, "files": files, "frames_sha256": frames_sha256})


def read_description(folder: Path, file: str | None = None) -> Description | None:
    """What the file in a folder of exported pickles or HDF5 files says; None where there is none.

    Where each sequence's folder holds several files, it is what is said of those named `file`. Raises AttenGaitError
    when it is damaged.
    """
    path = folder / FILE_NAME
    try:
        content = read_document(path, max_bytes=MAX_BYTES)
        if (content["format"], content["version"]) == (FORMAT, OF_FILES_VERSION):
            if file not in content["files"]:
                return None
            content = content["files"][file]
        elif content["format"] not in (FORMAT, H5_FORMAT) or content["version"] != VERSION:
            raise ValueError(f"its format is {content['format']!r}, version {content['version']!r}")
        attributes = _kept(content["attributes"])
        for key in ("dataset", "modality", "encoding"):
            if not isinstance(attributes.get(key), str):
                raise ValueError(f"it gives no {key}")
        return Description(attributes=attributes, recipe=content["recipe"], content_sha256=content["content_sha256"])
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise AttenGaitError(
            f"{path} is damaged ({error}): delete it, and give modality and encoding instead"
        ) from None


def _content_of(description: Description) -> dict[str, Any]:
    return {
        "attributes": description.attributes,
        "recipe": description.recipe,
        "content_sha256": description.content_sha256,
    }


def _dump(content: dict[str, Any]) -> bytes:
    return json.dumps(content, indent=2).encode() + b"\n"


def _kept(attributes: dict[str, Any]) -> dict[str, Any]:
    """Those of a store's attributes that say what its pictures show."""
    names = ("dataset", "modality", "encoding", "channels")
    return {key: value for key, value in attributes.items() if key in names or key.startswith("encoding_")}


def flow_channels(encoding: str) -> tuple[str, ...]:
    """Names of the channels of flow in an encoding, such as flow-u, flow-v."""
    return _CHANNELS[encoding]


def channel_names(attributes: dict[str, Any], channels: int) -> tuple[str, ...]:
    """Names of a store's channels: as its attributes say, or as its encoding has them, else 0, 1, and so on."""
    named = attributes.get("channels") or [
        name for part in str(attributes.get("encoding")).split("+") for name in _CHANNELS.get(part, ())
    ]
    if len(named) != channels:
        return tuple(map(str, range(channels)))
    return tuple(map(str, named))


def select_channels(names: Sequence[str], wanted: Sequence[str]) -> list[int]:
    """Indices of the channels that are wanted: by name (flow-u), or all of a kind (flow, silhouette).

    They come in the order of `names`; all where nothing is wanted. Raises ParameterError for a name that there is not.
    """
    kinds = [name.partition("-")[0] for name in names]
    for each in wanted:
        if each not in names and each not in kinds:
            known = ", ".join(dict.fromkeys([*kinds, *names]))
            raise ParameterError(f"channels is {each!r}, but must be some of {known}")
    pairs = enumerate(zip(names, kinds, strict=True))
    return [i for i, (name, kind) in pairs if not wanted or name in wanted or kind in wanted]
