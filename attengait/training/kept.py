"""The last checkpoints of a run, beside the newest.

    RUN/checkpoints/00000500/    config.json, checkpoint.pt and model.safetensors after step 500

Each is a run folder, so that whatever takes a run takes it, too. They are hard links to the files that
`save_checkpoint` wrote, which are never changed but replaced: keeping one costs no time, and no space until the next.
"""

import contextlib
import os
import shutil
from pathlib import Path

from attengait.model.loading import WEIGHTS_NAME
from attengait.model.run_folder import RECORD_NAME
from attengait.training.checkpoint import CHECKPOINT_NAME

KEPT_FOLDER = "checkpoints"


def keep_checkpoint(run: Path, step: int, num_kept: int) -> None:
    """Keep what was saved after `step` steps, if `num_kept` is above 1, and remove all but the last `num_kept`."""
    folder = run / KEPT_FOLDER
    if num_kept > 1:
        folder.mkdir(exist_ok=True)
        unfinished = folder / f".{step:08d}"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        for name in (RECORD_NAME, CHECKPOINT_NAME, WEIGHTS_NAME):
            if (run / name).exists():
                _link(run / name, unfinished / name)
        shutil.rmtree(folder / f"{step:08d}", ignore_errors=True)
        unfinished.rename(folder / f"{step:08d}")
    for old in kept_checkpoints(run)[: -num_kept if num_kept > 1 else None]:
        shutil.rmtree(old, ignore_errors=True)
    with contextlib.suppress(OSError):  # it is empty
        folder.rmdir()


def forget_later(run: Path, step: int) -> None:
    """Remove kept checkpoints of later steps than `step`, which are done again, and what a kill left."""
    for old in kept_checkpoints(run):
        if int(old.name) > step:
            shutil.rmtree(old, ignore_errors=True)
    for left in (run / KEPT_FOLDER).glob(".[0-9]*"):
        shutil.rmtree(left, ignore_errors=True)


def kept_checkpoints(run: Path) -> list[Path]:
    """The folders of the checkpoints that are kept, the oldest first."""
    folder = run / KEPT_FOLDER
    if not folder.is_dir():
        return []
    found = [entry for entry in folder.iterdir() if entry.name.isdecimal() and entry.is_dir()]
    return sorted(found, key=lambda entry: int(entry.name))


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)
