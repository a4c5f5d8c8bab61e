"""Stores: one Zarr v3 group per data set, written in parallel, resumable, readable by anyone.

`open_store` opens a finished one; `attengait.store.writer` writes, `attengait.store.readers` read clips fast, and
`attengait.store.verify` finds damage. `attengait.store.layout` describes the files. Names are imported on first use, as
zarr takes a while to load.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from attengait.store.opening import open_store
    from attengait.store.sequences import Sequences
    from attengait.store.store import Store
    from attengait.store.summary import summarise

__all__ = ["Sequences", "Store", "open_store", "summarise"]

_HOMES = {"Sequences": "sequences", "Store": "store", "open_store": "opening", "summarise": "summary"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'attengait.store' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"attengait.store.{_HOMES[name]}"), name)
