"""Operators of torch that are our own.

`torch.library.custom_op` does the same, but its first call loads torch._dynamo: a second in each program.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.library import Library


def new_library() -> Library:
    """Where operators are registered. They go with the last reference to it."""
    return Library("attengait", "FRAGMENT")  # type: ignore[no-untyped-call]


def define(library: Library, name: str, compute: Callable[..., Any], shapes: Callable[..., Any]) -> None:
    """Make a function the operator `attengait::name`, which is called as `torch.ops.attengait.name`.

    Args:
        library: of `new_library`.
        name: that of the operator.
        compute: takes tensors and numbers, says their types, and changes none; a result is no view of an argument.
        shapes: takes the same and returns empty tensors of the right shapes, for torch.compile.
    """
    schema = torch.library.infer_schema(compute, mutates_args=())
    library.define(name + schema, tags=(torch.Tag.pt2_compliant_tag,))  # type: ignore[no-untyped-call]
    library.impl(name, compute, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]
    torch.library.register_fake(f"attengait::{name}", shapes, lib=library)


def differentiate(
    library: Library, name: str, keep: Callable[..., None], gradients: Callable[..., tuple[Any, ...]]
) -> None:
    """Give an operator its gradient.

    Args:
        library: in which it is defined.
        name: that of the operator.
        keep: `keep(ctx, inputs, output)` keeps in `ctx` what the gradient needs.
        gradients: `gradients(ctx, *gradients of the outputs)` returns those of the inputs.
    """
    torch.library.register_autograd(f"attengait::{name}", gradients, setup_context=keep, lib=library)
