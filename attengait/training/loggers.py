"""Who hears the values of a run: files of its own, TensorBoard, and whatever a package adds.

A package adds a logger by an entry point in the group `attengait.loggers`: a name, and a class that is called without
arguments and has the methods of `RunLogger`. `--set loggers=tensorboard,NAME` then uses it. The loggers of AttenGait
itself have the same interface.

Names of values are paths, such as train/total or validation/rank1. docs/watching-a-run.md lists them.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from attengait.system.plugins import PluginError, find_plugin, plugin_names

GROUP = "attengait.loggers"

_log = logging.getLogger(__name__)


class RunLogger(Protocol):
    """Hears what a run has to say. Each method is called in the process that trains, between two steps.

    An exception of a method does not stop the training: it is said once, and counted.
    """

    def start(self, run: Path, about: Mapping[str, Any], first_step: int) -> None:
        """Training begins, or goes on after `first_step` steps.

        `about` is what is known of the run, as values of JSON: model, steps, batch, device, data, validation, settings.
        Values of later steps that were heard before are to be forgotten: these steps are done again.
        """
        ...

    def scalars(self, step: int, values: Mapping[str, float | None]) -> None:
        """Values after `step` steps, by name. None: there is none, as for the gradient of a step that was skipped."""
        ...

    def image(self, name: str, step: int, picture: NDArray[np.uint8]) -> None:
        """A picture, uint8 [height, width, 3] in the order red, green, blue."""
        ...

    def finish(self, ended: str) -> None:
        """Training ends: `finished`, `stopped early`, `stopped: REASON` or `failed: REASON`."""
        ...


class TensorBoard:
    """Writes RUN/tensorboard."""

    def start(self, run: Path, about: Mapping[str, Any], first_step: int) -> None:
        """See RunLogger."""
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(run / "tensorboard"), purge_step=first_step + 1)

    def scalars(self, step: int, values: Mapping[str, float | None]) -> None:
        """See RunLogger."""
        for name, value in values.items():
            if value is not None:
                self._writer.add_scalar(name, value, step)

    def image(self, name: str, step: int, picture: NDArray[np.uint8]) -> None:
        """See RunLogger."""
        self._writer.add_image(name, picture, step, dataformats="HWC")

    def finish(self, ended: str) -> None:
        """See RunLogger."""
        self._writer.close()


OWN: dict[str, Callable[[], RunLogger]] = {"tensorboard": TensorBoard}
"""Loggers of AttenGait that the setting `loggers` can name."""


def known_loggers() -> tuple[str, ...]:
    """What the setting `loggers` accepts."""
    return plugin_names(OWN, GROUP)


def _make(load: Callable[[], Callable[[], RunLogger]]) -> RunLogger:
    return load()()


class Loggers:
    """Several loggers as one, whose failures stop nothing."""

    def __init__(self, own: Mapping[str, Callable[[], RunLogger]], names: Sequence[str]) -> None:
        """`own` are used always, `names` are those of the setting.

        Raises ParameterError for an unknown name, PluginError for one that several packages have.
        """
        self._classes = dict(own)
        self._classes |= {name: partial(_make, find_plugin(OWN, GROUP, name, "loggers")) for name in names}
        self._loggers: dict[str, RunLogger] = {}
        self.num_failures: dict[str, int] = {}
        """Calls that failed, by logger."""

    def start(self, run: Path, about: Mapping[str, Any], first_step: int) -> None:
        """See RunLogger. A logger that fails here is left out."""
        self._loggers = {}
        for name in self._classes:
            self._try(name, self._start, name, run, about, first_step)

    def scalars(self, step: int, values: Mapping[str, float | None]) -> None:
        """See RunLogger."""
        for name, logger in self._loggers.items():
            self._try(name, logger.scalars, step, values)

    def image(self, name: str, step: int, picture: NDArray[np.uint8]) -> None:
        """See RunLogger."""
        for logger_name, logger in self._loggers.items():
            self._try(logger_name, logger.image, name, step, picture)

    def finish(self, ended: str) -> None:
        """See RunLogger. Says how often which logger failed, if more than once."""
        for name, logger in self._loggers.items():
            self._try(name, logger.finish, ended)
        for name, count in self.num_failures.items():
            if count > 1:
                _log.warning("the logger %s failed %s times", name, count)

    def _start(self, name: str, run: Path, about: Mapping[str, Any], first_step: int) -> None:
        logger = self._classes[name]()
        logger.start(run, about, first_step)
        self._loggers[name] = logger

    def _try(self, name: str, method: Callable[..., None], *arguments: Any) -> None:
        try:
            method(*arguments)
        except Exception as error:  # whatever it is: others wrote the logger
            self.num_failures[name] = self.num_failures.get(name, 0) + 1
            if self.num_failures[name] == 1:
                what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
                what = str(error) if isinstance(error, PluginError) else what
                then = "training goes on" if name in self._loggers else "training goes on without it"
                _log.warning("the logger %s failed (%s); %s", name, what, then)
