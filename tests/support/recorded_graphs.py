"""CUDA graphs without a GPU: what a step computes is recorded operation by operation, and replayed without Python.

As on a GPU, a recording holds operations with the addresses of their tensors. Numbers that Python had read, and
decisions that it took, are fixed. What is computed while it is recorded is lost: it is overwritten with NaN. Reading a
value of a tensor, or an operation whose result has as many elements as the values say, ends the recording with an
error.
"""

from contextlib import contextmanager

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from attengait.training import graphs

READS = {"_local_scalar_dense", "item", "is_nonzero", "equal", "nonzero", "masked_select", "pin_memory", "lift_fresh"}
READS |= {"_unique2", "unique_dim", "unique_consecutive", "repeat_interleave.Tensor"}


def tensors(tree):
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


class Recording(TorchDispatchMode):
    """Stands in for torch.cuda.CUDAGraph."""

    made: list["Recording"] = []  # noqa: RUF012

    def __init__(self):
        super().__init__()
        self.operations = []
        self.replays = 0
        self.made.append(self)

    def __torch_dispatch__(self, operation, types, arguments=(), named=None):
        named = named or {}
        name = operation.name().split("::")[1]
        masks = name.startswith("index") and any(each.dtype == torch.bool for each in tensors(arguments[1:2]))
        if name in READS or name.split(".")[0] in READS or masks:
            raise RuntimeError(f"operation {name} not permitted when stream is capturing\nCompile with ...")
        result = operation(*arguments, **named)
        changes = operation._schema.is_mutable
        is_view = not changes and any(each.alias_info is not None for each in operation._schema.returns)
        if not is_view and not name.startswith(("empty", "new_empty")):
            self.operations.append((operation, arguments, named, None if changes else tensors(result)))
        return result

    def forget_results(self):
        """Nothing was computed while it was recorded."""
        for _, arguments, named, results in self.operations:
            known = {each.untyped_storage().data_ptr() for each in tensors((arguments, named))}
            for result in results or ():
                if result.is_floating_point() and result.untyped_storage().data_ptr() not in known:
                    result.fill_(float("nan"))

    @torch.no_grad()
    def replay(self):
        self.replays += 1
        for operation, arguments, named, results in self.operations:
            again = operation(*arguments, **named)
            for old, new in zip(results or (), tensors(again) if results else (), strict=True):
                old.copy_(new)


@contextmanager
def record(recording, *, pool, stream, capture_error_mode):
    """Stands in for torch.cuda.graph."""
    assert capture_error_mode == "thread_local"
    assert (pool, stream) == ("pool", "side stream")
    with recording:
        yield
    with torch.no_grad():
        recording.forget_results()


@pytest.fixture
def recorded(monkeypatch):
    """Let steps on the CPU be computed by graphs; returns the recordings that are made."""
    monkeypatch.setattr(graphs, "DEVICES", ("cpu",))
    monkeypatch.setattr(Recording, "made", [])
    for name, stand_in in (
        ("CUDAGraph", Recording),
        ("graph", record),
        ("graph_pool_handle", lambda: "pool"),
        ("Stream", lambda device: "side stream"),
        ("current_stream", lambda device: "current stream"),
        ("set_stream", lambda stream: None),
        ("synchronize", lambda device: None),
        ("memory_reserved", lambda device: 1000 * len(Recording.made)),
        ("memory_allocated", lambda device: 0),
    ):
        monkeypatch.setattr(torch.cuda, name, stand_in)
    return Recording.made
