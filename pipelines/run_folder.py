"""The folder of a training run: who may write into it, and which run it holds."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from attengait.errors import AttenGaitError, ParameterError
from attengait.model.run_folder import RECORD_NAME
from attengait.system.files import lock, remove_leftovers
from attengait.training.checkpoint import EPOCHS, RUN_FILES, RunRecord, read_record
from attengait.training.config import differences, make_config, settings_of

_log = logging.getLogger(__name__)


@contextmanager
def locked_folder(run: Path) -> Iterator[None]:
    """Make the folder of a run and hold its lock. A new folder that stays empty because of an error is removed."""
    is_new = not run.exists()
    run.mkdir(parents=True, exist_ok=True)
    with (run / ".lock").open("wb") as file:
        lock(file, AttenGaitError(f"{run} is being trained in by another process"))
        for name in RUN_FILES:
            remove_leftovers(run / name)
        try:
            yield
        except BaseException:
            if is_new and [entry.name for entry in run.iterdir()] == [".lock"]:
                (run / ".lock").unlink()
                run.rmdir()
            raise


def is_begun(run: Path) -> bool:
    """Whether a folder is empty or holds a run."""
    if not run.is_dir():
        return False
    # The last is what a kill leaves while the record is written.
    if all(entry.name == ".lock" or entry.name.startswith(f".{RECORD_NAME}.") for entry in run.iterdir()):
        return True
    try:
        read_record(run)
    except AttenGaitError:
        return False
    return True


def continued(run: Path, before: RunRecord, now: RunRecord) -> RunRecord:
    """The record of a run that is continued: that of before, with more epochs where these grew.

    Raises ParameterError and AttenGaitError where something else differs.
    """
    old, new = (settings_of(record.config) for record in (before, now))
    longer = {key: new[key] for key in EPOCHS if new[key] > old[key]}
    same = make_config(old | {"replicas": before.config.data.num_replicas})
    changed = differences(same, make_config(new | {key: old[key] for key in longer}))
    if changed:
        raise ParameterError(
            f"the settings of {run} are others ({'; '.join(changed)}), but must be those of the run that is continued: "
            f"use these or choose another --out ({' and '.join(EPOCHS)} may be larger)"
        )
    # An older record says less about its store.
    same_store = all(now.store.get(key) == value for key, value in before.store.items())
    if not same_store or before.subjects != now.subjects:
        raise AttenGaitError(f"{run} was trained on another store: continue with that one or choose another --out")
    if not longer:
        return before
    _log.info(
        "the run is made longer: %s; from here on the learning rate is that of a run that has always been so long",
        ", ".join(f"{key} {old[key]}, now {value}" for key, value in longer.items()),
    )
    return RunRecord(
        config=make_config(old | longer),
        subjects=before.subjects,
        store=before.store,
        earlier=[*before.earlier, {key: old[key] for key in EPOCHS} | {"sha256": before.sha256}],
    )
