"""Preprocessing in one call, as `attengait.preprocess` and the command line do it: a recipe, and what runs it here."""

from collections.abc import Sequence
from pathlib import Path

from attengait.datasets import Folders, find_dataset
from attengait.errors import ParameterError
from attengait.pipelines.preprocess.gpus import GpuProcesses
from attengait.preprocessing.executors import Executor, LocalProcesses
from attengait.preprocessing.flow import FlowRecipe
from attengait.preprocessing.flow_choice import choose_flow
from attengait.preprocessing.ready import ready_recipe
from attengait.preprocessing.recipe import Recipe
from attengait.preprocessing.run import PreprocessConfig, run_preprocessing
from attengait.preprocessing.silhouette import SilhouetteRecipe
from attengait.preprocessing.summary import PreprocessSummary
from attengait.store.layout import DEFAULT_CHUNK_FRAMES
from attengait.store.location import Where
from attengait.system.machine import usable_cores
from attengait.system.progress import SILENT, Progress

MOST_READERS = 16
"""Processes that read for one GPU, unless more are asked for."""


def preprocess(
    dataset: str,
    out: Where,
    *,
    frames: str | Path | None = None,
    silhouettes: str | Path | None = None,
    flow_images: str | Path | None = None,
    layout: str | None = None,
    silhouette_layout: str | None = None,
    constants: Sequence[str] | None = None,
    recipe: Recipe | None = None,
    executor: Executor | None = None,
    codec: str = "none",
    chunk_frames: int = DEFAULT_CHUNK_FRAMES,
    progress: Progress = SILENT,
) -> PreprocessSummary:
    """Turn the frames and silhouettes of a data set into one store of flow images, or of what another recipe makes.

    Killed at any moment, the same call continues where it stopped; where the store is finished, it does nothing.

    Args:
        dataset: how the folders are laid out: casia-b, grew or oumvlp.
        out: the store, a folder, or an s3:// or gs:// URL.
        frames: folder of the videos, or of pictures made from them; needed for flow.
        silhouettes: folder of the silhouettes.
        flow_images: folder of flow images that are ready, as those of grew and oumvlp.
        layout: for the data set folders: how paths are made, such as {subject}/{walk}/{view}/{frame}.png.
        silhouette_layout: that of the silhouettes, where it is another one.
        constants: values of fields that the paths lack, such as view=090.
        recipe: FlowRecipe, SilhouetteRecipe or SilhouetteFlowRecipe; by default flow images in colour, as published,
            by the flow back end that suits this machine. For grew and oumvlp these are their flow images, kept as they
            are, where that folder is given. Else silhouettes: grew's are kept as they are, oumvlp's are cut out and
            resized.
        executor: what runs it; by default one process for each usable core, or the first GPU for the flow cuda.
        codec: none, lz4 or zstd.
        chunk_frames: frames in one chunk, the unit of compression.
        progress: hears how many frames are done.

    Returns:
        What came out and what was left out. `attengait.open_store` takes it.

    Raises:
        ParameterError: a parameter that is out of range or does not fit the others, or a store at `out` that was made
            with other ones.
        AttenGaitError: no usable sequence, input that changed, another run at work, or a disk that is full.

    >>> summary = attengait.preprocess(
    ...     "casia-b", "walkers.zarr", frames="walkers/rgb", silhouettes="walkers/silh"
    ... )
    >>> summary.written.num_sequences
    16
    """
    modality = "silhouette" if silhouettes and not flow_images else "flow"
    chosen = recipe or ready_recipe(dataset, modality)
    if chosen is None and modality == "silhouette" and modality in find_dataset(dataset).computed:
        chosen = SilhouetteRecipe()
    chosen = chosen or FlowRecipe(flow=choose_flow("auto", out))
    folders = Folders(
        frames=None if frames is None else Path(frames),
        silhouettes=None if silhouettes is None else Path(silhouettes),
        flow_images=None if flow_images is None else Path(flow_images),
        layout=layout,
        silhouette_layout=silhouette_layout,
        constants=tuple(constants) if constants is not None else None,
    )
    config = PreprocessConfig(
        dataset=dataset,
        folders=folders,
        out=out,
        recipe=chosen,
        executor=executor if executor is not None else choose_executor(chosen),
        codec=codec,
        chunk_frames=chunk_frames,
    )
    return run_preprocessing(config, progress)


def choose_executor(recipe: Recipe, *, workers: int | None = None, gpus: Sequence[int] | None = None) -> Executor:
    """What runs a recipe on this machine: GPUs for the flow cuda, and nvof if they are named; else worker processes.

    Args:
        recipe: what is to be made.
        workers: processes, by default one for each usable core; on GPUs those that read for each GPU, by default the
            usable cores shared among the GPUs, but for one that the GPU's own process takes, and at most MOST_READERS.
        gpus: numbers of GPUs, counted from 0, for the flow cuda or nvof; by default the first.

    Raises:
        ParameterError: GPUs for another flow than these, or numbers out of range.
    """
    if recipe.flow == "cuda" or (recipe.flow == "nvof" and gpus is not None):
        chosen = tuple(gpus) if gpus is not None else (0,)
        shared = usable_cores() // max(1, len(chosen)) - 1
        readers = workers if workers is not None else min(max(1, shared), MOST_READERS)
        return GpuProcesses(gpus=chosen, num_readers=readers, flow=recipe.flow)
    if gpus is not None:
        what = "no flow is computed" if recipe.flow is None else f"the flow is {recipe.flow}"
        raise ParameterError(f"gpus is {list(gpus)}, but must be left out: {what}, and only cuda and nvof run on GPUs")
    return LocalProcesses(num_workers=workers if workers is not None else usable_cores())
