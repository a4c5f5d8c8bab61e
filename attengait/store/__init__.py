"""Stores: one Zarr v3 group per data set, written in parallel, resumable, readable by anyone.

`open_store` opens a finished one; `attengait.store.writer` writes, `attengait.store.readers` read clips fast, and
`attengait.store.verify` finds damage. `attengait.store.layout` describes the files.
"""

from attengait.store.opening import Store, open_store
from attengait.store.sequences import Sequences
from attengait.store.summary import summarise

__all__ = ["Sequences", "Store", "open_store", "summarise"]
