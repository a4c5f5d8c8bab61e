"""A data set's own division into training and test subjects, as OpenGait's JSON files give it."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from attengait.errors import AttenGaitError
from attengait.sampling.selection import parse_subjects, some_of, subjects_among
from attengait.system.documents import read_document
from attengait.training.config import DataSettings, TrainingConfig, make_config, settings_of

_log = logging.getLogger(__name__)

_MAX_BYTES = 64 << 20  # GREW's has 0.3 MB


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """Who is trained on and who is tested."""

    path: Path
    """The file."""
    train: tuple[str, ...]
    """TRAIN_SET: names of subjects."""
    test: tuple[str, ...]
    """TEST_SET: names of subjects."""
    probes: tuple[str, ...] = ()
    """PROBE_SET: sequences, as subject-type-view."""


def read_partition(path: str | Path) -> Partition:
    """Read a JSON file with TRAIN_SET and TEST_SET, lists of subjects, and perhaps PROBE_SET, a list of sequences.

    Raises AttenGaitError for a file that cannot be read or is no such JSON, and for a subject that is in both sets or
    has a sequence in PROBE_SET although it is trained on.
    """
    path = Path(path)
    sets = _sets(path)
    partition = Partition(
        path=path,
        train=tuple(sets["TRAIN_SET"]),
        test=tuple(sets["TEST_SET"]),
        probes=tuple(sets.get("PROBE_SET", ())),
    )
    train = set(partition.train)
    if both := [name for name in partition.test if name in train]:
        raise AttenGaitError(
            f"{path} is no partition: {len(both)} subjects are in TRAIN_SET and in TEST_SET, such as {some_of(both, 3)}"
        )
    # A probe is a sequence: subject-type-view.
    if probes := [name for name in sets.get("PROBE_SET", []) if name.split("-")[0] in train]:
        raise AttenGaitError(
            f"{path} is no partition: {len(probes)} sequences of PROBE_SET show subjects of TRAIN_SET, such as "
            f"{some_of(probes, 3)}"
        )
    return partition


def with_partition(
    config: TrainingConfig, partition: Partition, available: Sequence[str], where: object
) -> TrainingConfig:
    """Return the settings with the subjects of a store that a partition trains on; those it does not name are excluded.

    The log says how many subjects of both sets the store has. `available` are the store's subjects, `where` is its
    location. Raises AttenGaitError where the store has no subject of TRAIN_SET, and what `excluded_subjects` does.
    """
    train, test = set(partition.train), set(partition.test)
    chosen = [name for name in available if name in train]
    tested = [name for name in available if name in test]
    others = [name for name in available if name not in train and name not in test]
    if not chosen:
        raise AttenGaitError(
            f"{where} has none of the {len(train)} subjects in TRAIN_SET of {partition.path} (such as "
            f"{some_of(partition.train, 3)}): its subjects are {some_of(available, 3)}"
        )
    _log.info(
        "%s: trains on %s of the %s subjects in TRAIN_SET; %s of the %s in TEST_SET are in the store, too",
        partition.path,
        len(chosen),
        len(train),
        len(tested),
        len(test),
    )
    if others:
        _log.warning(
            "%s subjects of %s are in neither set of %s and are left out: %s",
            len(others),
            where,
            partition.path,
            some_of(others),
        )
    excluded = excluded_subjects(config.data, available) | set(others)
    changes = {
        "train_subjects": tuple(name for name in chosen if name not in excluded),
        "exclude_subjects": tuple(name for name in available if name in excluded),
        "known_subjects": (),
    }
    return make_config(settings_of(config) | changes)


def excluded_subjects(data: DataSettings, available: Sequence[str]) -> set[str]:
    """The subjects that are set aside. One that the preset knows may be absent, as 005 in a part of CASIA-B.

    Raises ParameterError for a piece of exclude_subjects that matches nobody else.
    """
    known = subjects_among(data.known_subjects, data.exclude_subjects) if data.known_subjects else set()
    wanted = [piece for piece in data.exclude_subjects if piece in available or piece not in known]
    return set(parse_subjects(wanted, available, what="exclude_subjects")) if wanted else set()


def _sets(path: Path) -> dict[str, list[str]]:
    """The lists of a partition's file."""
    try:
        content = read_document(path, max_bytes=_MAX_BYTES)
    except OSError as error:
        raise AttenGaitError(f"the partition {path} cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise AttenGaitError(f"the partition {path} cannot be read: {error}") from None
    if not {"TRAIN_SET", "TEST_SET"} <= content.keys():
        raise AttenGaitError(f"{path} is no partition: a JSON object with TRAIN_SET and TEST_SET is expected")
    for key in ("TRAIN_SET", "TEST_SET", "PROBE_SET"):
        value = content.get(key, [])
        if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
            raise AttenGaitError(f"{path} is no partition: its {key} must be a list of texts")
    return content
