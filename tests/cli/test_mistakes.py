"""One clear sentence for every mistake on the command line, and the right status."""

from pathlib import Path

import pytest
from command import FLOW, TRAINING, attengait, refused

SILHOUETTES = ("preprocess", "casia-b", "--silhouettes", "b", "--out", "c", "--modality", "silhouette")


@pytest.mark.parametrize(
    ("words", "status", "part"),
    [
        (("train", "w.zarr", "--out", "x", "--set", "learning_rat=1"), 2, "learning_rate"),
        (("train", "w.zarr", "--out", "x", "--preset", "casia"), 2, "casia-b"),
        (("train", "w.zarr", "--out", "x", "--set", "train_subjects=900-901"), 2, "900-901"),
        (("train", "w.zarr", "--out", "x", "--set", "clip_frames=40"), 2, "40 frames"),
        (("evaluate", "run", "w.zarr", "--distance", "l3"), 2, "l3"),
        (("evaluate", "run", "w.zarr", "--protocol", "x"), 2, "casia-b"),
        (("evaluate", "run"), 2, "STORE"),
        (("evaluate", "nowhere", "w.zarr"), 1, "nowhere"),
        (("evaluate", "--embeddings", "nowhere.npz"), 1, "nowhere.npz"),
        (("evaluate", "run", "w.zarr", "--subjects", "777"), 2, "777"),
        (("embed", "run", "w.zarr", "--out", "no/such/folder.npz"), 1, "folder.npz"),
        (("synth", "x", "--walks", "run-01"), 2, "run-01"),
        (("synth", "x", "--views", "a"), 2, "views"),
        (("preprocess", "casia-b", "--frames", "a", "--silhouettes", "b", "--out", "c", "--codec", "rar"), 2, "codec"),
        (("preprocess", "casia-b", "--silhouettes", "b", "--out", "c"), 2, "frames is missing"),
        (("preprocess", "casia-b", "--silhouettes", "b", "--out", "c", "--modality", "depth"), 2, "silhouette"),
        ((*SILHOUETTES, "--frames", "a"), 2, "but must be left out: the modality silhouette takes no frames"),
        ((*SILHOUETTES, "--encoding", "uv"), 2, "--encoding is given, but must be left out"),
        ((*SILHOUETTES, "--gap", "skip"), 2, "--gap is given, but must be left out"),
        ((*SILHOUETTES, "--silhouette-offset", 1), 2, "--silhouette-offset is given, but must be left out"),
        ((*FLOW, "--silhouette-level", 1), 2, "silhouette_level is 1.0, but must be a number between 0 and 1"),
        ((*SILHOUETTES, "--farneback", "winsize=9"), 2, "--farneback is given, but must be left out"),
        ((*SILHOUETTES, "--gpus", "1"), 2, "--gpus is given, but must be left out"),
        (
            (*FLOW, "--flow", "opencv", "--gpus", "2"),
            2,
            "gpus is [0, 1], but must be left out: the flow is opencv",
        ),
        (
            (*FLOW, "--flow", "cuda", "--gpus", "0"),
            2,
            "gpus is '0', but must be how many, from 1 on",
        ),
        ((*FLOW, "--flow", "cuda", "--gpus", "1,1"), 2, "gpus is [1, 1], but must be different numbers from 0 on"),
        ((*FLOW, "--flow", "cuda", "--gpus", "all"), 2, "gpus is 'all', but must be whole numbers"),
        ((*FLOW, "--flow", "cuda", "--workers", "0"), 2, "workers is 0"),
        ((*FLOW, "--flow", "warp"), 2, "flow is 'warp', but must be one of auto, opencv, cpu, cuda, opencv-cuda, nvof"),
        ((*FLOW, "--farneback", "winsize=1"), 2, "winsize is 1, but must be a whole number of at least 2"),
        ((*FLOW, "--farneback", "winsize"), 2, "but must be KEY=VALUE"),
        ((*FLOW, "--farneback", "winsiz=9"), 2, "did you mean 'winsize'?"),
        (
            (*FLOW, "--flow", "nvof", "--farneback", "winsize=15"),
            2,
            "farneback is given, but must be left out",
        ),
        (("doctor", "--folder", "nowhere"), 1, "folder is nowhere, but must be a folder that exists"),
        (("preprocess", "casia-b", "--frames", "a", "--silhouettes", "b", "--out", "c", "--encoding", "h"), 2, "uvm"),
        (("benchmark", "loader", "w.zarr", "--clip-frames", "100"), 1, "100"),
        (("benchmark", "loader", "w.zarr", "--plot", "x.pdf"), 2, ".png"),
        (("benchmark", "layout", "w.zarr", "--codecs", "rar"), 2, "'rar'"),
        (("benchmark", "ranks", "w.zarr", "--processes", "0"), 2, "processes"),
        (("benchmark", "soak", "w.zarr", "--clips", "5"), 2, "at least ten batches"),
        (("benchmark", "scale", "--sequences", "5"), 2, "at least 80"),
        (
            ("benchmark", "flow", "--sizes", "320x240,big"),
            2,
            "sizes is 'big', but must be width x height",
        ),
        (("benchmark", "flow", "--flow", "raft"), 2, "raft"),
        (("benchmark", "agreement", "--frames", "w.zarr/sequences"), 1, "w.zarr/sequences"),
        (("evaluate", "run", "w.zarr", "--json", "no/such/table.json"), 1, "no/such"),
        (("evaluate", "run", "w.zarr", "--json", "."), 1, "is a folder"),
        (
            ("evaluate", "run", "w.zarr", "--json", "run/config.json"),
            2,
            "another name than",
        ),
        (("evaluate", "run", "w.zarr", "--submission", "w.zarr/a.csv", "--protocol", "hid"), 2, "outside"),
        (("evaluate", "--embeddings", "w.zarr.jsonl", "--json", "w.zarr.jsonl"), 2, "another file than w.zarr.jsonl"),
        (("evaluate", "run", "w.zarr", "--fuse", "f.npz", "--json", "f.npz"), 2, "another file than f.npz"),
        (("evaluate", "run", "w.zarr", "--partition", "p.json", "--json", "p.json"), 2, "another file than p.json"),
        (
            ("evaluate", "run", "w.zarr", "--json", "a.png", "--verification", "--curves", "a.png"),
            2,
            "curves is 'a.png', but must be another file than a.png",
        ),
        (("compare", "a.npz", "b.npz", "--json", "b.npz"), 2, "another file than b.npz"),
        (("embed", "run", "w.zarr", "--out", "e"), 2, "out is 'e', but must be a file that ends in .npz"),
        (("map", "a.png", "--out", "a.png"), 2, "another file than a.png"),
        (("attention", "run", "--out", "run/first_batch.png"), 2, "the run's own files"),
        (("show", "w.zarr", "--out", "w.zarr/zarr.json"), 2, "which is the folder of a store"),
        (("export", "weights", "run", "--out", "run/model.safetensors"), 2, "the run's own files"),
        (("import", "keras", "w.hdf5", "--out", "w.hdf5"), 2, "another file than w.hdf5"),
        (("benchmark", "layout", "w.zarr", "--out", "w.zarr/zarr.json"), 2, "which is the folder of a store"),
        (("evaluate", "--embeddings", "x.npz", "--precision", "fp32"), 2, "--precision"),
        (("show", "w.zarr", "--out", "."), 1, "is a folder"),
        (("train", "w.zarr", "--out", "w.zarr", *TRAINING), 1, "no folder of a training run"),
        (("train", "w.zarr", "--out", "x", *TRAINING, "--set", "exclude_subjects=009"), 2, "'009'"),
        (("train", "w.zarr", "w.zarr", "--out", "x", *TRAINING), 1, "w.zarr is given twice"),
        (("train", "w.zarr", "--out", "x", *TRAINING, "--cache", "disk"), 2, "'disk'"),
        (("train", "w.zarr", "--out", "x", *TRAINING, "--set", "train_walks=xx"), 2, "train_walks is 'xx'"),
        (("train", "w.zarr", "--out", "x", *TRAINING, "--set", "exclude_subjects=1-2"), 2, "at most the 1 subjects"),
        (("train", "w.zarr", "--out", "norun", "--resume", "--preset", "demo"), 1, "norun"),
        (("train", "w.zarr", "--out", "x", "--set", "device=gpu"), 2, "cuda:N"),
        (("nonsense",), 2, "nonsense"),
    ],
)
def test_mistakes_are_one_sentence_with_the_right_status(
    journey: Path, words: tuple[str, ...], status: int, part: str
) -> None:
    refused(attengait(*words, cwd=journey), status, part)
    assert not (journey / "x").exists()
    assert not (journey / "norun").exists()
