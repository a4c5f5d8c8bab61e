"""Who is trained on: the subjects that the settings and the store choose, and those that are held out."""

from collections.abc import Sequence
from pathlib import Path

from attengait.errors import ParameterError
from attengait.pipelines.runs import subjects_of, subjects_set_aside
from attengait.sampling.holding_out import held_out_subjects
from attengait.sampling.selection import PART, STORE_MARK, parse_subjects, some_of, subjects_among
from attengait.store import Store
from attengait.store.joined import JoinedStores
from attengait.store.skipped import plural
from attengait.training.config import TrainingConfig
from attengait.training.partition import excluded_subjects, read_partition, with_partition

_NOT_TRAINED_ON = ("probe", "gallery", "*test", "distractor*")
"""Names that a data set gives to what is no training subject."""


def choose_subjects(store: Store | JoinedStores, config: TrainingConfig) -> tuple[list[str], list[str]]:
    """The subjects that are trained on, and the training subjects that are held out for validation."""
    data, available = config.data, subjects_of(store)
    _check_names(store, config, available)
    excluded = excluded_subjects(data, available)
    chosen = parse_subjects(data.train_subjects, available, what="train_subjects")
    subjects = [name for name in chosen if name not in excluded]
    _check_parts(store, config, subjects)
    held_out = held_out_subjects(data.validation_subjects, subjects, available, excluded)
    kept_back = set(held_out)
    return [name for name in subjects if name not in kept_back], held_out


def partition_subjects(config: TrainingConfig, path: str | Path, store: Store | JoinedStores) -> TrainingConfig:
    """The settings with the subjects that a partition trains on. Raises what `with_partition` does, and ParameterError
    for several stores."""
    if isinstance(store, JoinedStores):
        raise ParameterError(f"partition is {str(path)!r}, but must be left out for several stores")
    return with_partition(config, read_partition(path), subjects_of(store), store.location)


def _check_names(store: Store | JoinedStores, config: TrainingConfig, available: Sequence[str]) -> None:
    """Raise ParameterError where the names of subjects say that the training set is another than the settings say."""
    data, where = config.data, store.location if isinstance(store, Store) else "the stores"
    if data.known_subjects:
        known = subjects_among(data.known_subjects, available)
        if unknown := [name for name in available if name not in known]:
            raise ParameterError(
                f"train_subjects is {','.join(data.train_subjects)!r}, which the preset means for another data set, "
                f"but must be set for {where}: {len(unknown)} of its {len(available)} subjects are unknown to the "
                f"preset, such as {some_of(unknown, 3)}; use --set train_subjects=... or --partition"
            )
    excluded = excluded_subjects(data, available)
    # Of several stores, what follows the store's name is the data set's own name.
    own = {name: name.partition(STORE_MARK)[2] if isinstance(store, JoinedStores) else name for name in available}
    suspicious = subjects_among(_NOT_TRAINED_ON, list(own.values()))
    others = [name for name in available if own[name] in suspicious and name not in excluded]
    if not data.train_subjects and others:
        raise ParameterError(
            f"train_subjects is empty, which means all, but must be set: the names of some subjects of {where} say "
            f"that they are not for training, such as {some_of(others, 3)}; use --set train_subjects=... or "
            "--partition"
        )


def _check_parts(store: Store | JoinedStores, config: TrainingConfig, subjects: Sequence[str]) -> None:
    """Raise ParameterError for subjects that a data set itself has set aside, as GREW's gallery."""
    set_aside = subjects_set_aside(store)
    if tested := [name for name in subjects if name in set_aside]:
        raise ParameterError(
            f"train_subjects is {','.join(config.data.train_subjects)!r}, but must leave out {some_of(tested, 3)}: by "
            f"the column {PART} of the store, {plural(len(tested), 'subject')} of them belong to no training part; use "
            "--set 'train_subjects=*train'"
        )
