"""JSON documents that people may have changed: read within bounds, or refused with the reason.

A sealed document carries the SHA-256 of its other content, so that a changed digit is noticed.
"""

import hashlib
import json
import math
import os
from collections.abc import Mapping
from typing import Any

from attengait.system.files import open_regular

SEAL = "sha256"
"""The key of a sealed document that holds the digest."""


def read_document(path: str | os.PathLike[str], *, max_bytes: int) -> dict[str, Any]:
    """Read a file with a JSON object.

    Raises OSError for a file that cannot be read, and ValueError, with a short reason, as `parse_document` does.
    """
    with open_regular(path) as file:
        text = file.read(max_bytes + 1)
    if len(text) > max_bytes:
        raise ValueError(f"it is larger than {max_bytes >> 20} MiB")
    return parse_document(text)


def parse_document(text: bytes | str) -> dict[str, Any]:
    """Read a JSON object. Raises ValueError, with a short reason, for anything else.

    A key that occurs twice, NaN, infinity, numbers of thousands of digits and very deep nesting are refused, too.
    """
    try:
        content = json.loads(
            text,
            object_pairs_hook=_object,
            parse_constant=_refuse_constant,
            parse_int=_integer,
            parse_float=_finite,
        )
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8 text") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON: {error.msg} (line {error.lineno}, column {error.colno})") from None
    if not isinstance(content, dict):
        raise ValueError("it is not a JSON object")
    return content


def sha256_of(content: Mapping[str, Any]) -> str:
    """The digest of a JSON object, whatever its layout and the order of its keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def seal(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content with its digest."""
    return {**content, SEAL: sha256_of(content)}


def unsealed(document: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a document, sealed or not."""
    return {key: value for key, value in document.items() if key != SEAL}


def is_intact(document: Mapping[str, Any]) -> bool:
    """Whether a sealed document has the content that it was sealed with; one without a seal counts as intact."""
    return SEAL not in document or document[SEAL] == sha256_of(unsealed(document))


def require_keys(document: Mapping[str, Any], needed: tuple[str, ...], optional: tuple[str, ...] = ()) -> None:
    """Raise ValueError, naming the key, unless a document has the needed keys, and no others but the optional ones."""
    for key in needed:
        if key not in document:
            raise ValueError(f"it has no {key}")
    for key in document:
        if key not in needed and key not in optional:
            raise ValueError(f"its key {shortened(key)} is unknown")


def shortened(value: object) -> str:
    """A value as an error shows it: on one line, and of a bounded length."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits, or deep nesting
        return f"a {type(value).__name__} that is too long to show"
    return text if len(text) <= 80 else f"{text[:60]}... ({len(text)} characters)"


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for name, value in pairs:
        if name in content:
            raise ValueError(f"its key {shortened(name)} occurs twice")
        content[name] = value
    return content


def _integer(digits: str) -> int:
    if len(digits) > 20:
        raise ValueError(f"it holds a whole number of {len(digits)} digits")
    return int(digits)


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"it holds {shortened(digits)}, which is too large for a number")
    return number


def _refuse_constant(name: str) -> None:
    raise ValueError(f"it holds {name}, which is no number of JSON")
