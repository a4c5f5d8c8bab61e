"""AttenGait: people recognised by how they walk, from optical flow.

Names are imported on first use: a spawned preprocessing worker must not pay for torch (1.5 s and 220 MB).
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["AttenGaitError", "ParameterError", "decode_uv", "load_model", "open_store", "preprocess"]

if TYPE_CHECKING:
    from attengait.errors import AttenGaitError, ParameterError
    from attengait.kernels.pictures.encode import decode_uv
    from attengait.model.loading import load_model
    from attengait.pipelines.preprocess.run import preprocess
    from attengait.store import open_store

_HOMES = {
    "AttenGaitError": "attengait.errors",
    "ParameterError": "attengait.errors",
    "decode_uv": "attengait.kernels.pictures.encode",
    "load_model": "attengait.model.loading",
    "open_store": "attengait.store",
    "preprocess": "attengait.pipelines.preprocess.run",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'attengait' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
