"""What binds the files of a run folder together: weights and checkpoint name the digest of the record they belong to.

    RUN/config.json        the record, sealed with its own SHA-256 (attengait.training.checkpoint says what is in it)
    RUN/model.safetensors  the weights, with the record's digest
    RUN/checkpoint.pt      the state of the training, with the record's digest

Runs of version 0.1.0 have none of this. They are read, and the log says what cannot be noticed.
"""

import functools
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attengait.errors import AttenGaitError
from attengait.system.documents import SEAL, is_intact, parse_document, sha256_of, unseal
from attengait.system.files import open_regular

RECORD_NAME = "config.json"
RUNTIME_SETTINGS = frozenset({"cache", "checkpoint_every_steps", "device", "stop_after_steps"})
"""A resumed run may change these: they say where and how long it runs, not what is computed."""
MAX_RECORD_BYTES = 64 << 20

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordContent:
    """What a record's file holds, before anything is known about its meaning."""

    content: dict[str, Any]
    """Without the seal."""
    sha256: str
    """What `identity_sha256` says of it."""


def identity_sha256(content: Mapping[str, Any]) -> str:
    """The digest of what a record says about what is computed. To it, weights and checkpoint are bound.

    Equal runs give equal weights, wherever and in however many parts they ran.
    """
    config = content.get("config")
    if isinstance(config, dict):
        content = {**content, "config": {key: config[key] for key in config if key not in RUNTIME_SETTINGS}}
    return sha256_of(content)


def read_content(run: Path) -> RecordContent:
    """Read RUN/config.json. Raises AttenGaitError where there is none, where it is damaged, and where it was edited."""
    path = run / RECORD_NAME
    try:
        with open_regular(path) as file:
            text = file.read(MAX_RECORD_BYTES + 1)
        if len(text) > MAX_RECORD_BYTES:
            raise ValueError(f"it is larger than {MAX_RECORD_BYTES >> 20} MiB")
        document = parse_document(text)
        content, _ = unseal(document)
    except (FileNotFoundError, NotADirectoryError):
        raise AttenGaitError(f"{run} is not the folder of a training run: it has no {RECORD_NAME}") from None
    except OSError as error:
        raise AttenGaitError(f"{path} cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise AttenGaitError(f"{path} is damaged or of another version: {error}") from None
    if not is_intact(document):
        raise AttenGaitError(
            f"{path} was changed after it was written (its {SEAL} does not fit), but what a run is trained with cannot "
            "be changed afterwards: put the old file back, or start a new run; --set changes device, cache, "
            "checkpoint_every_steps and stop_after_steps of a run that is continued with --resume"
        )
    if SEAL not in document:
        warn_unchecked(path)
    return RecordContent(content=content, sha256=identity_sha256(content))


def check_bound(path: Path, record_sha256: str, run: Path, now_sha256: str) -> None:
    """Raise AttenGaitError unless a file of `run` that names `record_sha256` belongs to the record that is there."""
    if record_sha256 != now_sha256:
        raise AttenGaitError(
            f"{path} belongs to another run than {run / RECORD_NAME}: one of the two was replaced or changed, so put "
            "back the one that belongs there, or start a new run"
        )


@functools.cache
def warn_unchecked(path: Path) -> None:
    """Warn, once for each file, that damage to it cannot be noticed."""
    _log.warning(
        "%s carries no checksums (it is from version 0.1.0 or another program): damage to it cannot be noticed", path
    )
