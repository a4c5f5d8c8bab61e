"""The batches of a training plan, made from frames that are kept on a device."""

from typing import Self

import numpy as np
import torch

from attengait.errors import require
from attengait.sampling.plan import BatchPlan, ClipBatch


class ResidentStream:
    """The batches of a training plan out of frames on a device, gathered there: what ClipStream gives, without DALI.

    `frames` is uint8 [F, H, W, C]; a batch costs the host its plan, the transfer of the indices, and a launch.

    Raises ParameterError for parameters out of range.
    """

    def __init__(
        self,
        frames: torch.Tensor,
        plan: BatchPlan,
        *,
        start_step: int = 0,
        num_steps: int | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        require(start_step >= 0, "start_step", start_step, "at least 0")
        require(num_steps is None or num_steps >= 0, "num_steps", num_steps, "at least 0")
        self._frames, self._plan = frames, plan
        # Eight bytes at a time where they divide a frame.
        rows = frames.reshape(len(frames), -1)
        self._rows = rows.view(torch.int64) if rows.shape[1] % 8 == 0 and rows.data_ptr() % 8 == 0 else rows
        self._step = start_step
        self._end = None if num_steps is None else start_step + num_steps
        self._rank, self._world_size = rank, world_size

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> ClipBatch:
        if self._step == self._end:
            raise StopIteration
        planned = self._plan.batch(self._step, self._rank, self._world_size)
        self._step += 1
        frames = planned.frames
        if frames is None:
            frames = planned.starts[:, None] + np.arange(self._plan.clip_frames)
        device = self._frames.device
        index = torch.from_numpy(frames.reshape(-1)).to(device, non_blocking=True)
        clips = self._rows.index_select(0, index).view(torch.uint8)
        return ClipBatch(
            step=planned.step,
            clips=clips.view(*frames.shape, *self._frames.shape[1:]),
            labels=torch.from_numpy(planned.labels).to(device, non_blocking=True),
            sequences=planned.sequences,
        )

    def close(self) -> None:
        """Nothing is under way; batches given out stay valid."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
