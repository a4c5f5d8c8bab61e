"""`attengait import` and `attengait export` as a user meets them."""

import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import foreign_files
import pytest
import typer

from attengait.cli.main import app, main
from attengait.model.config import ModelConfig
from attengait.model.loading import save_weights
from attengait.model.net import AttenGait

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def attengait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs a command in this process and in the test's folder: its exit status and what it printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(signal, "signal", lambda number, handler: None)

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["attengait", *map(str, words)])
        status: object = 0
        try:
            main()
        except SystemExit as exit:
            status = exit.code or 0
        assert isinstance(status, int)
        return status, *capsys.readouterr()

    return run


def test_pickles_to_a_store_to_pickles(attengait: Command, tmp_path: Path) -> None:
    foreign_files.write_pickles(tmp_path / "in", foreign_files.arrays(64, 44))
    words = ("import", "pickles", "in", "--out", "s.zarr", "--workers", 1)
    status, out, _ = attengait(*words, "--dry-run")
    assert (status, out.splitlines()[0]) == (0, "s.zarr (new): 4 sequences, at most 69 frames,")
    status, out, err = attengait(*words)
    assert (status, err) == (0, "")
    assert out.startswith("s.zarr: 4 sequences, 69 frames (")
    status, out, _ = attengait(*words)
    assert "nothing was done" in out
    status, _, err = attengait(*words, "--no-pad")
    assert (status, len(err.splitlines())) == (2, 1)
    assert "recipe.pad is 'none', but must be 'square', as when" in err
    status, out, _ = attengait("export", "pickles", "s.zarr", "--out", "out", "--workers", 1, "--dry-run")
    assert (status, (tmp_path / "out").exists()) == (0, False)
    status, out, _ = attengait("export", "pickles", "s.zarr", "--out", "out", "--workers", 1)
    assert status == 0
    assert out.startswith("out: 4 sequences, 69 frames, uint8 T x 64 x 64, ")
    assert (tmp_path / "out/002/nm-01/090/090.pkl").is_file()


def test_two_stores_go_out_side_by_side(attengait: Command, tmp_path: Path) -> None:
    arrays = foreign_files.arrays(64, 64)
    foreign_files.write_pickles(tmp_path / "in", arrays)
    fewer = {name: array[:10] for name, array in arrays.items() if name[0] == "001"}
    foreign_files.write_pickles(tmp_path / "fewer", fewer)
    for name in ("in", "fewer"):
        assert attengait("import", "pickles", name, "--out", f"{name}.zarr", "--workers", 1)[0] == 0
    words = ("export", "pickles", "in.zarr", "--with", "fewer.zarr", "--out", "out", "--workers", 1)
    status, out, err = attengait(*words)
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith("out: 3 sequences, 27 frames, uint8 T x 64 x 64 and T x 64 x 64, ")
    assert lines[1:] == [
        "left out: 12 frames in 2 sequences that only in.zarr has",
        "left out: 1 sequence that only in.zarr has: 002/nm-01/090",
    ]
    written = sorted(path.name for path in (tmp_path / "out/001/nm-01/090").iterdir())
    assert written == ["0_silhouette.pkl", "1_silhouette.pkl"]


def test_a_network_goes_out(attengait: Command, tmp_path: Path) -> None:
    network = AttenGait(ModelConfig.of_size("tiny", channels=1, num_classes=2, blocks_per_stage=1))
    save_weights(network, tmp_path / "w.safetensors")
    status, out, _ = attengait("export", "weights", "w.safetensors", "--out", "again.safetensors")
    assert (status, out) == (0, "again.safetensors: the weights of w.safetensors\n")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "w.safetensors").read_bytes()
    status, out, _ = attengait("export", "weights", "w.safetensors", "--out", "w.onnx", "--format", "onnx")
    assert status == 0
    assert out.startswith("w.onnx: the network of w.safetensors. Its embeddings differ from torch's by ")
    status, _, err = attengait("import", "keras", "w.safetensors", "--out", "x")
    assert (status, len(err.splitlines())) == (1, 1)
    assert "w.safetensors is no HDF5 file" in err


def test_pickles_are_not_written_behind_a_url(attengait: Command, tmp_path: Path) -> None:
    status, _, err = attengait("export", "pickles", "s.zarr", "--out", "s3://bucket/out")
    assert (status, list(tmp_path.iterdir())) == (2, [])
    assert err == "attengait: out is s3://bucket/out, but must be a folder on this machine\n"


def test_frames_that_no_model_takes_come_in_and_are_refused_for_training(attengait: Command, tmp_path: Path) -> None:
    foreign_files.write_pickles(tmp_path / "in", foreign_files.arrays(64, 44))
    assert attengait("import", "pickles", "in", "--out", "s.zarr", "--workers", 1, "--no-pad")[0] == 0
    status, _, err = attengait("train", "s.zarr", "--out", "run", "--preset", "demo")
    assert (status, err) == (1, "attengait: s.zarr has frames of 64 x 44 pixels, but the model takes 64 x 64\n")
    assert not (tmp_path / "run").exists()


def test_published_files_to_a_store(attengait: Command, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for (subject, walk, view), array in foreign_files.arrays(64, 64, 3).items():
        foreign_files.write_hdf5(tmp_path / "in" / f"{subject}_{walk}_{view}.h5", array)
    options = ("--dataset", "casia-b", "--codec", "lz4", "--chunk-frames", 8, "--workers", 1)
    status, _, err = attengait("import", "h5", "in", "--out", "s.zarr", *options)
    assert (status, err) == (0, "")
    known = json.loads(attengait("info", "s.zarr", "--json")[1])
    assert [known[key] for key in ("dataset", "modality", "codec", "chunk_frames", "frames")] == [
        *("casia-b", "flow", "lz4", 8, 69)
    ]
    assert attengait("verify", "s.zarr")[0] == 0
    words = ("export", "h5", "s.zarr", "--out", "out", "--workers", 1)
    assert attengait(*words, "--dry-run")[0] == 0
    assert not (tmp_path / "out").exists()
    status, out, err = attengait(*words)
    assert (status, err) == (0, "")
    assert out.startswith("out: 4 sequences, 69 frames, uint8 T x 64 x 64 x 3, ")
    assert (tmp_path / "out/tfimdb_casiab_N074_train_of30_64x64/002_nm-01_090.h5").is_file()


@pytest.mark.parametrize(
    ("words", "status", "part"),
    [
        (("import", "pickles", "nowhere", "--out", "x"), 1, "the folder nowhere does not exist"),
        (("import", "pickles", "in", "--out", "x", "--file", "y*"), 1, "with names like 'y*'"),
        (
            ("import", "pickles", "in", "--out", "x", "--modality", "depth"),
            2,
            "modality is 'depth', but must be one",
        ),
        (("import", "pickles", "in", "--out", "x", "--encoding", "uv"), 2, "only flow takes it, not silhouette"),
        (("import", "pickles", "in", "--out", "x", "--workers", "0"), 2, "workers is 0"),
        (("import", "pickles", "in", "--out", "x", "--chunk-frames", "0"), 2, "chunk_frames is 0"),
        (("import", "pickles", "in", "--out", "in"), 1, "in exists already"),
        (("import", "h5", "in", "--out", "x"), 1, "does not hold one .h5 file for each sequence"),
        (("export", "pickles", "nowhere.zarr", "--out", "x"), 1, "nowhere.zarr does not exist"),
        (("export", "pickles", "in", "--out", "x"), 1, "in is not a store"),
    ],
)
def test_mistakes_are_one_sentence(
    attengait: Command, tmp_path: Path, words: tuple[str, ...], status: int, part: str
) -> None:
    foreign_files.write_pickles(tmp_path / "in", foreign_files.arrays(8, 8))
    ended, out, err = attengait(*words)
    assert (ended, out) == (status, "")
    assert part in err
    assert err.startswith("attengait: ")
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "x").exists()


def test_the_set_of_converters_is_the_documented_one() -> None:
    groups = typer.main.get_command(app).commands
    shared = ["--chunk-frames", "--codec", "--dataset", "--dry-run", "--encoding"]
    options = {
        (group, name): sorted(option for parameter in command.params for option in parameter.opts if "--" in option)
        for group in ("import", "export")
        for name, command in groups[group].commands.items()
    }
    assert options == {
        ("import", "pickles"): [*shared, "--file", "--modality", "--out", "--pad", "--workers"],
        ("import", "h5"): [*shared, "--modality", "--out", "--pad", "--workers"],
        ("import", "keras"): ["--out"],
        ("export", "pickles"): ["--dry-run", "--out", "--with", "--workers"],
        ("export", "h5"): ["--dry-run", "--out", "--workers"],
        ("export", "weights"): ["--format", "--out"],
    }
