"""What binds the files of a run folder together: weights and checkpoint name the digest of the record they belong to.

    RUN/config.json        the record, sealed with its own SHA-256 (attengait.training.checkpoint says what is in it)
    RUN/model.safetensors  the weights, with the record's digest
    RUN/checkpoint.pt      the state of the training, with the record's digest

Runs of version 0.1.0 have none of this. They are read, and the log says what cannot be noticed.
"""

import functools
import logging
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from attengait.errors import AttenGaitError
from attengait.system.documents import SEAL, is_intact, read_document, sha256_of, shortened, unsealed

RECORD_NAME = "config.json"
RUNTIME_SETTINGS = frozenset(
    {
        "cache",
        "check_frames",
        "checkpoint_every_steps",
        "cuda_graphs",
        "device",
        "early_stopping_validations",
        "keep_checkpoints",
        "log_every_steps",
        "loggers",
        "profile_steps",
        "stop_after_steps",
        "validate_every_steps",
    }
)
"""Settings that a resumed run may change: they say where and how long it runs, not what is computed."""
_MAX_RECORD_BYTES = 64 << 20

_log = logging.getLogger(__name__)


def read_content(run: Path) -> dict[str, Any]:
    """What RUN/config.json says, before anything is known about its meaning.

    Raises AttenGaitError where there is none, where it is damaged, and where it was edited.
    """
    path = run / RECORD_NAME
    try:
        document = read_document(path, max_bytes=_MAX_RECORD_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        raise AttenGaitError(f"{run} is not the folder of a training run: it has no {RECORD_NAME}") from None
    except OSError as error:
        raise AttenGaitError(f"{path} cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise AttenGaitError(f"{path} is damaged or of another version: {error}") from None
    if not is_intact(document):
        changed = ", ".join(sorted(RUNTIME_SETTINGS))
        raise AttenGaitError(
            f"{path} was changed after it was written (its {SEAL} does not fit), but what a run is trained with cannot "
            f"be changed afterwards: put the old file back, or start a new run; with --resume, --set changes {changed}"
        )
    if SEAL not in document:
        warn_unchecked(path)
    return unsealed(document)


def record_digest(content: Mapping[str, Any]) -> str:
    """The digest of what determines a run. Equal runs have the same, wherever and in however many parts they ran."""
    settings = content.get("config")
    if isinstance(settings, dict):
        lasting = {key: value for key, value in settings.items() if key not in RUNTIME_SETTINGS}
        content = {**content, "config": lasting}
    return sha256_of(content)


def check_earlier(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What a record was before its run was made longer: each time the numbers of epochs and the digest.

    Raises ValueError where it is something else.
    """
    earlier = content.get("earlier", [])
    types = {"epochs": int, "epochs_without_cross_entropy": int, "sha256": str}
    for entry in earlier if isinstance(earlier, list) else [None]:
        if not isinstance(entry, dict) or {key: type(value) for key, value in entry.items()} != types:
            raise ValueError(f"earlier is {shortened(earlier)}, but must be a list of numbers of epochs and digests")
    return list(earlier)


def accepted_digests(content: Mapping[str, Any]) -> list[str]:
    """The digests that weights and checkpoint of a run may name: that of its record, and the earlier ones."""
    return [record_digest(content), *(str(entry["sha256"]) for entry in check_earlier(content))]


def check_bound(path: Path, record_sha256: str, run: Path, accepted: Collection[str]) -> None:
    """Raise AttenGaitError unless a file of `run` that names `record_sha256` belongs to the record that is there."""
    if record_sha256 not in accepted:
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
