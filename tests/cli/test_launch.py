"""`torchrun -m attengait train` and what `--gpus` starts, on CPUs: one voice, signals, and the death of a process."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import state_in
from small_stores import make_store

from attengait.cli.launch import use_gpus, without_gpus
from attengait.errors import ParameterError
from attengait.model.config import ModelConfig
from attengait.model.loading import save_weights
from attengait.model.net import AttenGait
from attengait.training.checkpoint import read_record

command = import_module("command")

LAUNCH = "import sys; from attengait.cli.launch import launch; sys.exit(launch(sys.argv[2:], int(sys.argv[1])))"
PATIENCE_SECONDS = 300
SETTINGS = {
    "size": "tiny",
    "subjects_per_batch": 2,
    "clips_per_subject": 2,
    "clip_frames": 16,
    "epochs": 1,
    "epochs_without_cross_entropy": 1,
    "warmup_epochs": 1,
    "device": "cpu",
    "precision": "fp32",
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight subjects of two sequences each."""
    folder = tmp_path_factory.mktemp("stores")
    path: Path = make_store(folder / "s.zarr", lengths=(18,) * 16, frame_shape=(64, 64, 3)).path
    return path


def words(store: Path, run: Path, *more: str, **changes: object) -> list[str]:
    settings = [word for key, value in (SETTINGS | changes).items() for word in ("--set", f"{key}={value}")]
    return ["train", str(store), "--out", str(run), *settings, *more]


def torchrun(number: int, *arguments: str) -> list[str]:
    several = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(number)]
    return [sys.executable, *several, "-m", "attengait", *arguments]


def launcher(number: int, *arguments: str) -> list[str]:
    """What `--gpus` calls, for machines without GPUs."""
    return [sys.executable, "-c", LAUNCH, str(number), *arguments]


def done(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS)


def said(stderr: str) -> list[str]:
    """The lines of standard error, without what the first use of our code says, and the progress on a slow machine."""
    aside = ("warning: compiling ", "Training: ", "Loading: ", "Embedding: ")
    return [line for line in stderr.splitlines() if not line.startswith(aside)]


def test_torchrun_trains_one_run_that_is_said_once_and_one_process_continues(store: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    first = done(torchrun(2, *words(store, run, stop_after_steps=2)))
    assert first.returncode == 0, first.stderr
    lines = first.stdout.splitlines()
    assert lines[0] == "trains on 8 of 8 subjects"
    assert lines[1] == (
        "a step is 4 x 2 clips on 2 processes: 2 replicas of 2 x 2; the learning rate is 0.001: 2 times 0.0005; "
        "triplets are formed within each replica"
    )
    assert "batch: 8 clips of 16 frames: 4 subjects x 2 clips" in lines
    assert len(lines) == len(set(lines))
    assert lines[-1:] == [
        f"2 of 4 steps done (stopped by stop_after_steps; continue with --resume): {run}/model.safetensors"
    ]
    assert read_record(run).config.data.replicas == 2
    assert len(list((run / "tensorboard").iterdir())) == 1
    rest = command.attengait("train", store, "--out", run, "--resume")
    assert rest.returncode == 0, rest.stderr
    assert rest.stdout.splitlines()[-1] == f"4 of 4 steps done: {run}/model.safetensors"


def test_a_wrong_setting_is_one_sentence_and_the_status_of_the_command(store: Path, tmp_path: Path) -> None:
    ended = done(launcher(2, *words(store, tmp_path / "run", subjects_per_batch=5)))
    assert (ended.returncode, ended.stdout) == (2, "")
    assert len(said(ended.stderr)) == 1
    assert "subjects_per_batch is 5 in each of 2 replicas, but must be at most the 8 subjects" in ended.stderr
    assert not (tmp_path / "run").exists()


def begun(store: Path, run: Path, number: int, **changes: object) -> subprocess.Popen[str]:
    """A run that has no end, after its first checkpoint."""
    endless = words(store, run, epochs=100_000, checkpoint_every_steps=1, **changes)
    process = subprocess.Popen(
        launcher(number, *endless), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    until = time.monotonic() + PATIENCE_SECONDS
    while not (run / "checkpoint.pt").exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < until
        time.sleep(0.1)
    return process


def ranks_of(launcher: subprocess.Popen[str]) -> list[int]:
    """The processes of a run, by rank."""
    found = {}
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError, IndexError, ValueError):
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            environment = (folder / "environ").read_bytes().split(b"\0")
            if parent == launcher.pid:
                rank = next(int(each[5:]) for each in environment if each.startswith(b"RANK="))
                found[rank] = int(folder.name)
    return [found[rank] for rank in sorted(found)]


def test_an_interrupted_launcher_leaves_a_checkpoint_and_the_usual_status(store: Path, tmp_path: Path) -> None:
    process = begun(store, tmp_path / "run", 2)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 130, stderr
    (sentence,) = said(stderr)
    assert sentence.startswith("SIGINT: stopped at step ")
    assert sentence.endswith("; continue with --resume")
    step = int(sentence.split()[4])
    assert state_in(tmp_path / "run" / "checkpoint.pt")["step"] == step


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_is_killed_ends_all_with_one_sentence(store: Path, tmp_path: Path, rank: int) -> None:
    process = begun(store, tmp_path / "run", 2, cache="host")
    ranks = ranks_of(process)
    maps = [Path(f"/proc/{each}/maps").read_text() for each in ranks]
    assert all("/memfd:attengait-" in each for each in maps), "they share memory, which has no name in a folder"
    assert not any("/dev/shm" in each for each in maps)
    os.kill(ranks[rank], signal.SIGKILL)
    _, stderr = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 1, stderr
    assert said(stderr) == [
        f"attengait: process {rank} of 2 was killed by signal 9, perhaps for lack of memory, and the others were "
        "stopped: the last checkpoint is kept, continue with --resume"
    ]
    assert not any(Path(f"/proc/{each}").exists() for each in ranks)
    assert state_in(tmp_path / "run" / "checkpoint.pt")["step"] >= 1


@pytest.fixture(scope="module")
def to_embed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Weights, and a store of five batches for embedding: 40 subjects of two sequences."""
    folder = tmp_path_factory.mktemp("embed")
    torch.manual_seed(0)
    save_weights(AttenGait(ModelConfig.of_size("tiny", blocks_per_stage=1)), folder / "w.safetensors")
    store = make_store(folder / "s.zarr", lengths=(60,) * 80, frame_shape=(64, 64, 3), shard_frames=480)
    return folder / "w.safetensors", store.path


def test_torchrun_embeds_and_evaluates_once_and_as_one_process(to_embed: tuple[Path, Path], tmp_path: Path) -> None:
    protocol = ("--protocol", "retrieval")
    made = done(torchrun(2, "embed", *map(str, to_embed), "--out", str(tmp_path / "two.npz"), "--device", "cpu"))
    assert (made.returncode, said(made.stderr)) == (0, []), made.stderr
    assert made.stdout.splitlines() == [f"{tmp_path}/two.npz: features [80, 62, 16]"]
    assert [path.name for path in tmp_path.iterdir()] == ["two.npz"]
    table = done(torchrun(2, "evaluate", *map(str, to_embed), *protocol, "--json", str(tmp_path / "two.json")))
    assert (table.returncode, said(table.stderr)) == (0, []), table.stderr
    assert table.stdout.count("mINP") == 1
    one = command.attengait("evaluate", *to_embed, *protocol, "--json", tmp_path / "one.json")
    assert one.returncode == 0, one.stderr
    assert (tmp_path / "one.json").read_text() == (tmp_path / "two.json").read_text()
    command.attengait("embed", *to_embed, "--out", tmp_path / "one.npz")
    with np.load(tmp_path / "one.npz") as a, np.load(tmp_path / "two.npz") as b:
        # torchrun gives each process one thread, and sums by several threads may have another order.
        assert np.allclose(a["features"], b["features"], rtol=1e-5, atol=1e-6)
        assert np.array_equal(a["subjects"], b["subjects"])


def test_a_killed_process_ends_the_embedding_with_one_sentence(to_embed: tuple[Path, Path], tmp_path: Path) -> None:
    words = launcher(2, "embed", *map(str, to_embed), "--out", str(tmp_path / "e.npz"), "--device", "cpu")
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, start_new_session=True)
    until = time.monotonic() + PATIENCE_SECONDS
    while not (tmp_path / "e.npz.work").exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < until
        time.sleep(0.01)
    ranks = ranks_of(process)
    os.kill(ranks[1], signal.SIGKILL)
    _, stderr = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 1
    (sentence,) = said(stderr)
    assert sentence.startswith("attengait: process 1 of 2 was killed by signal 9, perhaps for lack of memory, and the")
    assert not any(Path(f"/proc/{each}").exists() for each in ranks)
    assert list(tmp_path.iterdir()) == [], "no part was written yet"


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("info", "s.zarr"), "attengait info"),
        (("evaluate", "--embeddings", "e.npz"), "attengait evaluate without RUN"),
    ],
)
def test_what_one_process_does_is_refused_for_several(words: tuple[str, ...], what: str) -> None:
    ended = done(torchrun(2, *words))
    sentences = [line for line in ended.stderr.splitlines() if line.startswith("attengait: ")]
    assert sentences == [f"attengait: {what} was started by torchrun, 2 times, but must be started once"]
    assert (ended.returncode, ended.stdout) == (1, "")


def test_embeddings_in_a_file_need_no_gpus() -> None:
    ended = command.attengait("evaluate", "--embeddings", "e.npz", "--gpus", "2")
    command.refused(ended, 2, "without RUN, STORE, --precision and --gpus")


def test_gpus_are_refused_where_there_are_none_with_the_way_to_train_on_cpus(store: Path, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there are GPUs here")
    for changes, part in (({"device": "auto"}, "torch sees no GPU; .* torchrun"), ({}, "where device is 'cpu'")):
        ended = command.attengait(*words(store, tmp_path / "run", "--gpus", "2", **changes))
        command.refused(ended, 2, "gpus is '0,1', but must be left out")
        assert re.search(part, ended.stderr)


def test_the_gpus_that_are_named_are_what_the_processes_see(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    use_gpus((0, 2), "auto")
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0,2"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    use_gpus((1, 3), "cuda")
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "5,7"
    for gpus in ((0, 4), (1, 1)):
        with pytest.raises(ParameterError, match="must be different ones of 0 to 3"):
            use_gpus(gpus, "auto")
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    monkeypatch.setenv("MASTER_PORT", "1")
    with pytest.raises(ParameterError, match="left out under torchrun"):
        use_gpus((0, 1), "auto")


def test_the_processes_get_the_command_without_the_gpus() -> None:
    line = ["train", "s.zarr", "--gpus", "2", "--out", "run", "--gpus=0,1"]
    assert without_gpus(line) == ["train", "s.zarr", "--out", "run"]


@pytest.mark.parametrize(("preset", "gpus", "batch", "rate"), [("casia-b", 2, 16, 1e-3), ("grew", 8, 80, 2e-3)])
def test_the_published_batch_and_rate_are_those_of_so_many_replicas(
    preset: str, gpus: int, batch: int, rate: float, tmp_path: Path
) -> None:
    shown = command.attengait(
        "train", "s.zarr", "--out", tmp_path / "run", "--preset", preset, "--set", f"replicas={gpus}", "--show-settings"
    )
    settings = json.loads(shown.stdout)
    assert settings["replicas"] * settings["subjects_per_batch"] == batch
    assert settings["replicas"] * settings["learning_rate"] == pytest.approx(rate)
    assert settings["triplets"] == "replica"
