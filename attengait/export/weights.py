"""A network's weights for other programs: safetensors, ONNX, or a program of torch.export.

The exported network takes clips of one length, uint8 [N, T, 64, 64, C] with T >= 16, and returns the embeddings
float32 [N, 62, D]. N and T are free. It needs none of our code. A sequence shorter than 16 images must be repeated from
its start until it has 16, as `AttenGait.embed` does.
"""

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor
from torch.export import Dim

from attengait import __version__
from attengait.errors import AttenGaitError, how_to_install, require
from attengait.model.config import FRAME_PIXELS
from attengait.model.keras import HDF5_MAGIC
from attengait.model.loading import load_model, save_weights
from attengait.model.net import AttenGait
from attengait.model.pyramids import MIN_FRAMES
from attengait.system.files import check_target, open_regular, write_atomically

WeightsFormat = Literal["safetensors", "onnx", "torch-export"]
INPUT, OUTPUT = "frames", "embeddings"
METADATA_KEY = "attengait-model"
TOLERANCE = 1e-4
"""Largest difference of an embedding's value that another runtime may make. Values are of the order of 1."""


def export_weights(model: str | Path, out: str | Path, *, format: WeightsFormat) -> float | None:
    """Write the weights of a run, or of a file that `attengait.load_model` takes, for another program.

    Args:
        model: a run's folder, a .safetensors file, or the published program's .hdf5 file.
        out: the file to write. A file that is there is replaced once the new one is whole.
        format: `safetensors` (the weights and their configuration), `onnx`, or `torch-export` (for
            `torch.export.load`).

    Returns:
        The largest difference between the embeddings of the exported network and those of torch, on random clips of
        two lengths. None where nothing was compared: for safetensors, and for ONNX where onnxruntime is not installed.

    Raises:
        ParameterError: an unknown format, or an `out` that is the model or lies in the folder of a run or store.
        AttenGaitError: what `attengait.load_model` raises, a file that cannot be written, a package that is missing,
            or embeddings that differ.

    >>> attengait.export.weights.export_weights("run", "run.safetensors", format="safetensors")
    """
    require(format in get_args(WeightsFormat), "format", format, ", ".join(get_args(WeightsFormat)))
    out = Path(out)
    check_target(out, "out", (model,))
    network = load_model(model)
    if format == "safetensors":
        save_weights(network, out)
        return None
    data, run = _to_onnx(network) if format == "onnx" else _to_program(network)
    difference = None if run is None else max(_difference(network, run, clips) for clips in _clips(network))
    if difference is not None and not difference <= TOLERANCE:
        raise AttenGaitError(
            f"the network differs from torch by {difference:.2g}, more than {TOLERANCE:g}: {out} is not written"
        )
    write_atomically(out, data)
    return difference


def import_keras(file: str | Path, out: str | Path) -> None:
    """Turn weights of the published program (.hdf5) into a .safetensors file.

    Raises AttenGaitError for a file that is no such weights, and as `export_weights` does.
    """
    with contextlib.suppress(OSError), open_regular(file) as opened:
        if opened.read(len(HDF5_MAGIC)) != HDF5_MAGIC:
            raise AttenGaitError(f"{file} is no HDF5 file: Keras weights of the published program end in .hdf5")
    export_weights(file, out, format="safetensors")


_Run = Callable[[Tensor], Any]
"""uint8 [N, T, 64, 64, C] -> embeddings [N, 62, D], by the exported network."""


def _to_program(network: AttenGait) -> tuple[bytes, _Run]:
    with _exporting():
        program = torch.export.export(network, (_example(network),), dynamic_shapes=_free_sizes())
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # paths of this machine
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={f"{METADATA_KEY}.json": _description(network)})
    buffer.seek(0)
    return buffer.getvalue(), torch.export.load(buffer).module()


def _to_onnx(network: AttenGait) -> tuple[bytes, _Run | None]:
    try:
        import onnxscript  # noqa: F401  (torch's exporter needs it)
    except ModuleNotFoundError as error:
        raise AttenGaitError(f"format onnx needs the package {error.name}: {how_to_install('onnx')}") from error
    with _exporting():
        made = torch.onnx.export(
            network,
            (_example(network),),
            dynamic_shapes=_free_sizes(),
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamo=True,
            verbose=False,
        )
    assert made is not None
    for node in made.model.graph:
        node.metadata_props.clear()  # paths of this machine
    made.model.metadata_props[METADATA_KEY] = _description(network)
    data: bytes = made.model_proto.SerializeToString()
    try:
        import onnxruntime
    except ModuleNotFoundError:
        return data, None
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    return data, lambda clips: session.run([OUTPUT], {INPUT: clips.numpy()})[0]


def _free_sizes() -> tuple[dict[int, Any]]:
    return ({0: Dim("clips", min=1), 1: Dim("times", min=MIN_FRAMES)},)


def _description(network: AttenGait) -> str:
    frames = f"uint8 [N, T, {FRAME_PIXELS}, {FRAME_PIXELS}, C], T >= {MIN_FRAMES}"
    return json.dumps({"attengait": __version__, "config": network.config.to_dict(), INPUT: frames})


def _example(network: AttenGait) -> Tensor:
    return torch.zeros(3, 2 * MIN_FRAMES + 3, FRAME_PIXELS, FRAME_PIXELS, network.config.channels, dtype=torch.uint8)


def _clips(network: AttenGait) -> Iterator[Tensor]:
    random = np.random.default_rng(0)
    for shape in ((1, MIN_FRAMES), (2, 2 * MIN_FRAMES + 5)):
        yield torch.from_numpy(random.integers(0, 256, (*shape, *_example(network).shape[2:]), dtype=np.uint8))


@torch.no_grad()
def _difference(network: AttenGait, run: _Run, clips: Tensor) -> float:
    return float(np.abs(np.asarray(run(clips)) - network(clips).numpy()).max())


@contextlib.contextmanager
def _exporting() -> Iterator[None]:
    """Let sizes be free, and keep what the exporter says about packages that are not used."""
    from torch.fx.experimental import _config as sizes

    logger = logging.getLogger("torch.onnx")
    level = logger.level
    # Else a clip of 16 to 31 frames, which has one window of 16, would be refused.
    free = sizes.patch(backed_size_oblivious=True)  # type: ignore[attr-defined]
    with torch.no_grad(), free, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)
