"""What tests of CUDA graphs share: steps on the CPU, where tests/support/recorded_graphs.py stands in for the GPU."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from graph_steps import CPU, NETWORK, Job
from recorded_graphs import Recording, recorded  # noqa: F401

from attengait.model.config import ModelConfig
from attengait.model.net import AttenGait
from attengait.training.config import OptimiserSettings
from attengait.training.graphs import StepGraphs
from attengait.training.hooked import Hooked
from attengait.training.losses import StepLosses
from attengait.training.ranks import ALONE


@pytest.fixture
def job(recorded: list[Recording]) -> Iterator[Callable[..., Job]]:  # noqa: F811
    with contextlib.ExitStack() as stack:

        def make(precision: str = "fp32", why_not: str | None = None, compute: Any = None) -> Job:
            torch.manual_seed(0)
            model = AttenGait(ModelConfig(**NETWORK, blocks_per_stage=1, num_classes=3)).train()
            hooked = stack.enter_context(contextlib.closing(Hooked(model, CPU, ALONE)))
            losses = StepLosses(
                hooked=hooked,
                scaler=torch.amp.GradScaler("cpu", enabled=False),
                margins=None,
                precision=precision,
                settings=OptimiserSettings(),
                replicas=1,
                ranks=ALONE,
            )
            graphs = StepGraphs(
                compute=compute(losses) if compute else losses,
                parameters=list(model.parameters()),
                device=CPU,
                why_not=why_not,
            )
            return Job(stack.enter_context(contextlib.closing(graphs)), losses, model)

        yield make
