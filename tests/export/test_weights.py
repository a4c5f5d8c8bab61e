"""Networks for other programs: what comes out computes what torch computes, for any number of clips and frames."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from attengait.errors import AttenGaitError, ParameterError
from attengait.export import weights
from attengait.export.weights import export_weights, import_keras
from attengait.model.config import ModelConfig
from attengait.model.loading import load_model, save_weights
from attengait.model.net import AttenGait

SHAPES = ((1, 16), (3, 31), (2, 47))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    network = AttenGait(ModelConfig.of_size("tiny", channels=2, num_classes=4, blocks_per_stage=1))
    for parameter in network.parameters():
        parameter.data.add_(torch.randn_like(parameter), alpha=0.05)  # so that no attention is like another
    save_weights(network, path)
    return path


def clips(clips: int, times: int) -> torch.Tensor:
    random = np.random.default_rng(times)
    return torch.from_numpy(random.integers(0, 256, (clips, times, 64, 64, 2), dtype=np.uint8))


def test_onnx_computes_what_torch_computes(model: Path, tmp_path: Path) -> None:
    difference = export_weights(model, tmp_path / "network.onnx", format="onnx")
    assert difference is not None
    assert difference < 5e-5
    network = load_model(model)
    session = onnxruntime.InferenceSession(tmp_path / "network.onnx", providers=["CPUExecutionProvider"])
    for shape in SHAPES:
        there = session.run(["embeddings"], {"frames": clips(*shape).numpy()})[0]
        with torch.no_grad():
            np.testing.assert_allclose(there, network(clips(*shape)).numpy(), atol=5e-5, rtol=0)
    read = onnx.load(tmp_path / "network.onnx")
    onnx.checker.check_model(read)
    (description,) = (json.loads(entry.value) for entry in read.metadata_props if entry.key == "attengait-model")
    assert ModelConfig.from_dict(description["config"]) == network.config
    assert b".py" not in (tmp_path / "network.onnx").read_bytes()


def test_a_program_needs_none_of_our_code(model: Path, tmp_path: Path) -> None:
    difference = export_weights(model, tmp_path / "network.pt2", format="torch-export")
    assert difference is not None
    assert difference < 5e-5
    for shape in SHAPES:
        with torch.no_grad():
            np.save(tmp_path / f"frames-{shape[1]}.npy", clips(*shape).numpy())
            np.save(tmp_path / f"embeddings-{shape[1]}.npy", load_model(model)(clips(*shape)).numpy())
    program = (
        "import sys, numpy as np, torch; from pathlib import Path; folder = Path(sys.argv[1])\n"
        "network = torch.export.load(folder / 'network.pt2').module()\n"
        f"for times in {[times for _, times in SHAPES]}:\n"
        "    there = network(torch.from_numpy(np.load(folder / f'frames-{times}.npy'))).detach().numpy()\n"
        "    print(abs(there - np.load(folder / f'embeddings-{times}.npy')).max())\n"
        "assert not any(name.startswith('attengait') for name in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(float(line) < 5e-5 for line in done.stdout.split())
    assert len(done.stdout.split()) == len(SHAPES)


def test_safetensors_are_the_same_network(model: Path, tmp_path: Path) -> None:
    assert export_weights(model, tmp_path / "again.safetensors", format="safetensors") is None
    assert (tmp_path / "again.safetensors").read_bytes() == model.read_bytes()


def test_a_network_that_differs_is_not_written(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "_to_program", lambda network: (b"", lambda frames: network(frames) + 0.001))
    with pytest.raises(AttenGaitError, match=r"differs from torch by 0\.001.* is not written"):
        export_weights(model, tmp_path / "network.pt2", format="torch-export")
    monkeypatch.setattr(weights, "_to_program", lambda network: (b"", lambda frames: network(frames) * float("nan")))
    with pytest.raises(AttenGaitError, match="differs from torch by nan"):
        export_weights(model, tmp_path / "network.pt2", format="torch-export")
    assert list(tmp_path.iterdir()) == []


def test_without_onnxruntime_nothing_is_compared(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert export_weights(model, tmp_path / "network.onnx", format="onnx") is None
    assert (tmp_path / "network.onnx").exists()
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(AttenGaitError, match=r"format onnx needs the package onnxscript: run pip install '\.\[onnx\]'"):
        export_weights(model, tmp_path / "other.onnx", format="onnx")


def test_what_cannot_be_exported_is_refused(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="format is 'keras', but must be safetensors, onnx, torch-export"):
        export_weights(model, tmp_path / "x", format="keras")  # type: ignore[arg-type]
    with pytest.raises(AttenGaitError, match="there is no folder"):
        export_weights(model, tmp_path / "no" / "x", format="onnx")
    with pytest.raises(AttenGaitError, match="is no HDF5 file"):
        import_keras(model, tmp_path / "x")
    with pytest.raises(AttenGaitError, match="no weights at"):
        import_keras(tmp_path / "none", tmp_path / "x")


def test_keras_weights_become_a_file_of_ours(shared: Path, tmp_path: Path) -> None:
    import_keras(shared / "reference" / "tiny_weights.hdf5", tmp_path / "tiny.safetensors")
    there, here = load_model(shared / "reference" / "tiny_weights.hdf5"), load_model(tmp_path / "tiny.safetensors")
    assert here.config == there.config
    assert all(torch.equal(here.state_dict()[name], tensor) for name, tensor in there.state_dict().items())
