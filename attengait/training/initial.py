"""A run that begins with the weights of another one: fine-tuning.

All that a network has but its classifiers is taken, and must fit. These are drawn anew instead, as for any new run:

- the classifiers, where they have other shapes, or where the weights come from a run with other subjects: a class
  would mean another person;
- the layer that makes the embedding, its attention and the classifiers, where the size of the embedding is another.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from attengait.model.loading import fit_weights, read_weights, weights_file
from attengait.model.net import AttenGait
from attengait.model.run_folder import RECORD_NAME
from attengait.training.checkpoint import read_record

_log = logging.getLogger(__name__)

_CLASSIFIERS = ("classifier.",)
_EMBEDDING = ("embedding_linear.", "embedding_attention.")

_UNSEEN = ("attention_softmax", "spatial_reduction")
"""What a network computes and no shape of a tensor shows."""


def begin_with(model: AttenGait, path: str | Path, subjects: Sequence[str]) -> None:
    """Put the weights of a run folder or a weights file into a new model; the log says what was taken and what not.

    `subjects` are those that the model's classes mean.

    Raises AttenGaitError as `attengait.load_model` does, and where something else than the classifiers and the
    embedding does not fit, naming the first tensor and both shapes.
    """
    config, state = read_weights(path)
    own = model.state_dict()
    for name in _UNSEEN:
        there, here = (str(getattr(each, name)).lower() for each in (config, model.config))
        if there != here:
            _log.warning("%s has %s=%s, this run has %s: its weights learned something else", path, name, there, here)
    others: list[tuple[str, tuple[str, ...]]] = []
    if config.embedding_size != model.config.embedding_size:
        sizes = f"the embedding has {config.embedding_size} features there, {model.config.embedding_size} here"
        others.append((sizes, _EMBEDDING))
    if reason := _other_classes(own, state, _subjects_of(Path(path)), subjects):
        others.append((reason, _CLASSIFIERS))
    anew = tuple(prefix for _, prefixes in others for prefix in prefixes)
    taken = {name: tensor for name, tensor in state.items() if not name.startswith(anew)}
    drawn = {name: tensor for name, tensor in own.items() if name.startswith(anew)}
    fit_weights(model, taken | drawn, weights_file(path))
    _log.info("begins with the weights of %s: %s of its %s tensors are taken", path, len(taken), len(own))
    for why, prefixes in others:
        names = [name for name in drawn if name.startswith(prefixes)]
        if names:
            _log.info("drawn anew: %s (%s)", ", ".join(names), why)


def _other_classes(
    own: dict[str, Tensor], state: dict[str, Tensor], there: Sequence[str] | None, subjects: Sequence[str]
) -> str:
    """Why the classifiers there are of no use here; empty where they are."""
    name = "classifier.weight"
    if name not in state:
        return "there are no classifiers there"
    if state[name].shape != own[name].shape:
        return f"{name} is {list(state[name].shape)} there, {list(own[name].shape)} here"
    if there is not None and list(there) != list(subjects):
        return "the classes there are other subjects"
    return ""


def _subjects_of(path: Path) -> list[str] | None:
    """The training subjects of a run folder; None of weights that do not say."""
    has_record = path.is_dir() and (path / RECORD_NAME).exists()
    return read_record(path).subjects if has_record else None
