"""AttenGait: people recognised by how they walk, from optical flow.

    summary = attengait.preprocess("casia-b", "casia-b.zarr", frames=..., silhouettes=...)
    result = attengait.train(summary, "runs/casia-b", preset="casia-b")
    embeddings = attengait.embed(result, summary)
    print(attengait.evaluate(embeddings))

Names are imported on first use: a spawned preprocessing worker must not pay for torch (1.5 s and 220 MB).
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.2.0.dev0"
__all__ = [
    "AttenGait",
    "AttenGaitError",
    "ClipBatch",
    "ClipRules",
    "ClipStream",
    "Comparison",
    "Embeddings",
    "EvaluationOptions",
    "EvaluationResult",
    "FlowRecipe",
    "ParameterError",
    "PreprocessSummary",
    "Progress",
    "SilhouetteFlowRecipe",
    "SilhouetteRecipe",
    "Store",
    "TrainingResult",
    "compare",
    "decode_uv",
    "embed",
    "evaluate",
    "load_model",
    "open_store",
    "preprocess",
    "train",
]

if TYPE_CHECKING:
    from attengait.errors import AttenGaitError, ParameterError
    from attengait.evaluation.comparison import Comparison
    from attengait.evaluation.embeddings import Embeddings
    from attengait.evaluation.options import EvaluationOptions
    from attengait.evaluation.result import EvaluationResult
    from attengait.kernels.pictures.encode import decode_uv
    from attengait.model.loading import load_model
    from attengait.model.net import AttenGait
    from attengait.pipelines.embed import embed
    from attengait.pipelines.evaluate import compare, evaluate
    from attengait.pipelines.preprocess.run import preprocess
    from attengait.pipelines.stream import ClipStream
    from attengait.pipelines.train import train
    from attengait.preprocessing.flow import FlowRecipe, SilhouetteFlowRecipe
    from attengait.preprocessing.silhouette import SilhouetteRecipe
    from attengait.preprocessing.summary import PreprocessSummary
    from attengait.sampling.plan import ClipBatch
    from attengait.sampling.rules import ClipRules
    from attengait.store import Store, open_store
    from attengait.system.progress import Progress
    from attengait.training.trainer import TrainingResult

_HOMES = {
    "AttenGait": "attengait.model.net",
    "AttenGaitError": "attengait.errors",
    "ClipBatch": "attengait.sampling.plan",
    "ClipRules": "attengait.sampling.rules",
    "ClipStream": "attengait.pipelines.stream",
    "Comparison": "attengait.evaluation.comparison",
    "Embeddings": "attengait.evaluation.embeddings",
    "EvaluationOptions": "attengait.evaluation.options",
    "EvaluationResult": "attengait.evaluation.result",
    "FlowRecipe": "attengait.preprocessing.flow",
    "ParameterError": "attengait.errors",
    "PreprocessSummary": "attengait.preprocessing.summary",
    "Progress": "attengait.system.progress",
    "SilhouetteFlowRecipe": "attengait.preprocessing.flow",
    "SilhouetteRecipe": "attengait.preprocessing.silhouette",
    "Store": "attengait.store",
    "TrainingResult": "attengait.training.trainer",
    "compare": "attengait.pipelines.evaluate",
    "decode_uv": "attengait.kernels.pictures.encode",
    "embed": "attengait.pipelines.embed",
    "evaluate": "attengait.pipelines.evaluate",
    "load_model": "attengait.model.loading",
    "open_store": "attengait.store",
    "preprocess": "attengait.pipelines.preprocess.run",
    "train": "attengait.pipelines.train",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'attengait' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """The public names, so that completion shows them before they are imported."""
    return sorted({*globals(), *__all__})
