"""Checkpoints of a run folder: everything that a resumed run needs to continue with the very same numbers.

    RUN/config.json        the record: settings, training subjects and the store they came from
    RUN/checkpoint.pt      step, weights, optimiser and loss scaler, in one atomic file
    RUN/model.safetensors  the weights alone, for `attengait.load_model`

Batches, augmentation and dropout are pure functions of (seed, step), so no random state needs saving.

A checkpoint carries a CRC-32C of each tensor and one of all other values together, and the digest of the record. All
of it is packed as `attengait.training.packing` says.
"""

import errno
import itertools
import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any

import google_crc32c
import torch
from torch import Tensor

from attengait.errors import AttenGaitError
from attengait.model.checksums import check_tensors, checksums, first_not_finite
from attengait.model.loading import WEIGHTS_NAME, fit_weights, save_weights
from attengait.model.net import AttenGait
from attengait.model.run_folder import (
    RECORD_NAME,
    check_bound,
    check_earlier,
    read_content,
    record_digest,
    warn_unchecked,
)
from attengait.system.documents import require_keys, seal, shortened
from attengait.system.files import check_regular, write_atomically
from attengait.system.machine import available_memory_bytes
from attengait.training.archive import check_archive, check_records
from attengait.training.average import WeightAverage
from attengait.training.best import Best
from attengait.training.config import TrainingConfig, make_config, settings_of
from attengait.training.margins import AdaptiveMargins
from attengait.training.packing import pack, unpack

CHECKPOINT_NAME = "checkpoint.pt"
EPOCHS = ("epochs", "epochs_without_cross_entropy")
"""Settings that may grow when a run is continued."""
RUN_FILES = (RECORD_NAME, CHECKPOINT_NAME, WEIGHTS_NAME)
"""What a run writes with `write_atomically`."""
_STATE = ("step", "model", "optimiser", "scaler")
_OPTIONAL = ("extra", "validation")
_SCALARS = ("step", "weight_norm", "adam_norm", "trust_ratio")
"""What optimisers keep one number of for each parameter; all else has the parameter's shape."""
_WAYS = ("fused", "foreach")
"""How an optimiser computes; what it computes is the same."""
_MAX_DEPTH = 8
_MAX_VALUES = 100_000
_MAX_TEXT = 300
"""Bounds of what a checkpoint holds, far above any use: a pickle of a few bytes can mean a tree without end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """What RUN/config.json says about a run."""

    config: TrainingConfig
    subjects: list[str]
    """Training subjects; a label is an index into them."""
    store: dict[str, Any]
    """What identifies the training store: sequences, frames, a digest of its columns, modality and encoding."""
    earlier: list[dict[str, Any]] = field(default_factory=list)
    """What the record was before the run was made longer, each time: the numbers of epochs and its digest (sha256)."""
    sha256: str = field(default="", compare=False)
    """The digest of what determines the run, as it is in the file; of a record that was not read, as it will be."""

    def __post_init__(self) -> None:
        if not self.sha256:
            object.__setattr__(self, "sha256", record_digest(_content(self)))


def write_record(run: Path, record: RunRecord) -> None:
    """Write RUN/config.json."""
    write_atomically(run / RECORD_NAME, (json.dumps(seal(_content(record)), indent=2) + "\n").encode())


def read_record(run: Path) -> RunRecord:
    """Read RUN/config.json.

    Raises AttenGaitError where there is none, it is damaged, or it was changed after it was written.
    """
    content = read_content(run)
    try:
        require_keys(content, ("config", "subjects", "store"), ("earlier",))
        settings, subjects, store = content["config"], content["subjects"], content["store"]
        _require_type("config", settings, dict, "an object")
        _require_type("subjects", subjects, list, "a list of names")
        if not all(isinstance(name, str) for name in subjects):
            raise ValueError("subjects is a list of other things than names")
        _check_store(store)
        return RunRecord(
            config=make_config(settings),
            subjects=subjects,
            store=store,
            earlier=check_earlier(content),
            sha256=record_digest(content),
        )
    except (ValueError, TypeError) as error:
        raise AttenGaitError(f"{run / RECORD_NAME} is damaged or of another version: {_cut(str(error))}") from None


def _content(record: RunRecord) -> dict[str, Any]:
    content = {"config": settings_of(record.config), "subjects": record.subjects, "store": record.store}
    return content | ({"earlier": record.earlier} if record.earlier else {})


def _check_store(store: Any) -> None:
    """Raise ValueError unless a store is described by texts and numbers, or several by such descriptions."""
    _require_type("store", store, dict, "an object")
    for key, value in store.items():
        if key == "stores":
            _require_type("stores", value, list, "a list")
            for one in value:
                _check_store(one)
                for name in ("name", "sha256"):
                    _require_type(name, one.get(name), str, "a text")
                if "stores" in one:
                    raise ValueError("a store of several consists of several")
        elif value is not None and type(value) not in (str, int, float, bool):
            raise ValueError(f"{shortened(key)} of the store is {shortened(value)}, but must be a text or a number")


def _require_type(name: str, value: Any, kind: type, what: str) -> None:
    if not isinstance(value, kind):
        raise ValueError(f"{name} is {shortened(value)}, but must be {what}")


def _cut(text: str) -> str:
    return text if len(text) <= 300 else f"{text[:200]} ... {text[-80:]}"


def save_checkpoint(
    run: Path,
    *,
    step: int,
    model: AttenGait,
    optimiser: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    average: WeightAverage | None = None,
    margins: AdaptiveMargins | None = None,
    record_sha256: str = "",
    validation: Best | None = None,
) -> None:
    """Write the state after `step` steps of the run whose record has the digest `record_sha256` (empty: of none).

    Where there is an average of the weights, the weights alone are the average.
    Each file is either the old or the new one, never a part. The weights are written first: a run that is killed in
    between repeats the steps since the old checkpoint, and writes the same weights again.
    """
    with average.in_place(model) if average else nullcontext():
        save_weights(model, run / WEIGHTS_NAME, record_sha256=record_sha256 or None)
    state = {"step": step, "model": dict(model.state_dict()), "optimiser": optimiser.state_dict()}
    state |= {"scaler": scaler.state_dict(), "record_sha256": record_sha256}
    if extra := _extra(average, margins):
        state["extra"] = extra
    if validation is not None and validation.last_step:
        state["validation"] = validation.state_dict()
    packed = pack({**state, "crc32c": _checksums(state)})
    write_atomically(run / CHECKPOINT_NAME, partial(_save, packed))


def _save(packed: dict[str, Any], file: IO[bytes]) -> None:
    try:
        torch.save(packed, file)
    except RuntimeError as error:  # torch's word for a write that failed
        raise OSError(errno.EIO, str(error)) from error


def load_checkpoint(
    run: Path,
    *,
    model: AttenGait,
    optimiser: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    average: WeightAverage | None = None,
    margins: AdaptiveMargins | None = None,
    record_sha256: str = "",
    earlier_sha256: Collection[str] = (),
    validation: Best | None = None,
) -> int:
    """Restore a run's state in place and return the number of steps done. `validation` is what validations found.

    Raises AttenGaitError where the checkpoint is missing, damaged, of another run than the record with the digest
    `record_sha256` (empty: not compared) or one of `earlier_sha256`, or does not fit the model (naming the first tensor
    and both shapes).
    """
    path = run / CHECKPOINT_NAME
    if not path.exists():
        raise AttenGaitError(f"{run} has no {CHECKPOINT_NAME} to resume from: start it without --resume")
    state = _read_state(path)
    if record_sha256 and state.get("record_sha256"):
        check_bound(path, state["record_sha256"], run, (record_sha256, *earlier_sha256))
    fit_weights(model, state["model"], path)
    if validation is not None and "validation" in state:
        try:
            validation.load_state_dict(state["validation"])
        except ValueError as error:
            raise AttenGaitError(f"{path} is damaged: {error}") from None
    try:
        _check_optimiser(optimiser, state["optimiser"])
        optimiser.load_state_dict(_computed_as(optimiser, state["optimiser"]))
        scaler.load_state_dict(state["scaler"])
        _fill(_extra(average, margins), state.get("extra", {}))
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise AttenGaitError(f"{path} was written by another version: its optimiser does not fit ({error})") from None
    return int(state["step"])


def _extra(average: WeightAverage | None, margins: AdaptiveMargins | None) -> dict[str, dict[str, Tensor]]:
    """The tensors that only some runs have."""
    parts = {"average": average, "margins": margins}
    return {name: part.state() for name, part in parts.items() if part is not None}


def _fill(own: Mapping[str, Mapping[str, Tensor]], saved: Any) -> None:
    """Write saved tensors into a run's own. Raises ValueError where they are others."""
    require_keys(saved, tuple(own))
    for part, tensors in own.items():
        require_keys(saved[part], tuple(tensors))
        for name, tensor in tensors.items():
            value = saved[part][name]
            if not isinstance(value, Tensor) or value.shape != tensor.shape:
                raise ValueError(f"{name} of {part} is not {list(tensor.shape)} numbers")
            tensor.copy_(value)
        if (damaged := first_not_finite(tensors)) is not None:
            raise ValueError(f"{damaged} of {part} has values that are not finite")


def _read_state(path: Path) -> dict[str, Any]:
    """What a checkpoint holds, compared with its checksums. One of version 0.1.0 has none, which is logged."""
    try:
        check_regular(path)
        available = available_memory_bytes()
        if available is not None and path.stat().st_size > available:
            raise ValueError("it is larger than the memory that is left")
        check_archive(path)
        # Optimiser state stays on the CPU here: load_state_dict moves it to where the weights are.
        state = torch.load(path, map_location="cpu", weights_only=True)
        is_packed = "packed" in state  # version 0.1.0 did not, and had no checksums
        if is_packed:
            state = unpack(state)
        is_checked = is_packed or "crc32c" in state or "record_sha256" in state
        require_keys(state, (*_STATE, "record_sha256", "crc32c") if is_checked else _STATE, _OPTIONAL)
        if is_checked:
            expected = state.pop("crc32c")
            tensors, others = _parts(state)
            if sum(tensor.nbytes for tensor in tensors.values()) > path.stat().st_size:
                raise ValueError("its tensors are larger than the file")
            if not isinstance(expected, dict) or expected.pop("", None) != others:
                raise ValueError("its values have another checksum than they were written with")
            check_tensors(tensors, expected)
        else:
            check_records(path)
        step, weights = state["step"], state["model"]
        if type(step) is not int or not 0 <= step < 2**62:
            raise ValueError(f"step is {shortened(step)}, but must be a whole number of at least 0")
        if not isinstance(weights, dict) or not all(isinstance(each, Tensor) for each in weights.values()):
            raise ValueError("its model is no dictionary of tensors")
    except OSError as error:
        raise AttenGaitError(f"{path} cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise AttenGaitError(f"{path} is damaged: {_cut(str(error))}") from None
    except Exception as error:
        # torch.load raises many unrelated types (pickle, runtime) for a damaged file.
        raise AttenGaitError(f"{path} cannot be read, it is damaged ({type(error).__name__})") from None
    if not is_checked:
        warn_unchecked(path)
    return dict(state)


def _check_optimiser(optimiser: torch.optim.Optimizer, saved: Any) -> None:
    """Raise ValueError where a saved optimiser has other settings or shapes than the one of this run.

    The learning rate is set anew in each step.
    """
    for own, there in zip(optimiser.state_dict()["param_groups"], saved["param_groups"], strict=True):
        for key in (own.keys() & there.keys()) - {"lr", *_WAYS}:
            if own[key] != there[key]:
                raise ValueError(f"{key} is {shortened(there[key])}, but {shortened(own[key])} in this run")
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    tensors = {}
    for index, values in saved["state"].items():
        for name, value in values.items():
            shape = torch.Size() if name in _SCALARS else parameters[index].shape
            if not isinstance(value, Tensor) or value.shape != shape:
                raise ValueError(f"{name} of parameter {index} is not {list(shape)} numbers")
            tensors[f"{name} of parameter {index}"] = value
    if (damaged := first_not_finite(tensors)) is not None:
        raise ValueError(f"{damaged} has values that are not finite")


def _computed_as(optimiser: torch.optim.Optimizer, saved: dict[str, Any]) -> dict[str, Any]:
    """A saved optimiser, with the ways to compute of the one of this run: earlier versions had others."""
    groups = zip(saved["param_groups"], optimiser.param_groups, strict=True)
    own = [there | {way: group[way] for way in _WAYS if way in group} for there, group in groups]
    return {**saved, "param_groups": own}


def _checksums(state: Mapping[str, Any]) -> dict[str, int]:
    """The CRC-32C of each tensor by its place, and, by an empty text, that of all other values."""
    tensors, others = _parts(state)
    return {"": others, **checksums(tensors)}


def _parts(state: Mapping[str, Any]) -> tuple[dict[str, Tensor], int]:
    """The tensors of a state by their place, such as 'model'/'spatial.kernels.0', and the CRC-32C of all else."""
    leaves = list(itertools.islice(_leaves("", state, 0), _MAX_VALUES + 1))
    if len(leaves) > _MAX_VALUES:
        raise ValueError(f"it holds more than {_MAX_VALUES:,} values")
    tensors = {place: value for place, value in leaves if isinstance(value, Tensor)}
    others = [[place, value] for place, value in leaves if not isinstance(value, Tensor)]
    crc: int = google_crc32c.value(json.dumps(others).encode())
    return tensors, crc


def _leaves(place: str, value: Any, depth: int) -> Iterator[tuple[str, Any]]:
    """All values in dictionaries, lists and tuples, each with its place. Raises ValueError for anything else."""
    if depth > _MAX_DEPTH:
        raise ValueError("it is nested too deeply")
    if len(place) > _MAX_TEXT or (isinstance(value, str) and len(value) > _MAX_TEXT):
        raise ValueError("it holds texts that are too long")
    if isinstance(value, (dict, list, tuple)):
        # How many there are is a value, too: nothing is lost unnoticed.
        yield place, f"{'dictionary' if isinstance(value, dict) else 'list'} of {len(value)}"
        entries = value.items() if isinstance(value, dict) else enumerate(value)
        for key, each in entries:
            yield from _leaves(f"{place}/{key!r}" if place else repr(key), each, depth + 1)
    elif value is None or isinstance(value, (bool, int, float, str, Tensor)):
        yield place, value
    else:
        raise ValueError(f"{place} is a {type(value).__name__}")
