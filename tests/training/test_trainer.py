"""The training loop over batches made in memory: resuming, signals, NaN, checkpoints that do not fit."""

import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import state_in

from attengait import load_model
from attengait.errors import AttenGaitError, ParameterError
from attengait.sampling.plan import BatchPlan, ClipBatch
from attengait.store.sequences import Sequences
from attengait.system.progress import SILENT, Progress
from attengait.system.stopping import StopRequest
from attengait.training import checkpoint
from attengait.training import trainer as trainer_module
from attengait.training.checkpoint import RunRecord, read_record, write_record
from attengait.training.config import make_config
from attengait.training.ranks import Ranks
from attengait.training.run_files import read_metrics
from attengait.training.trainer import Trainer, resolve_device, step_seed

Heard = import_module("heard").Heard

SMALL: dict[str, Any] = {
    "size": "tiny",
    "blocks_per_stage": 1,
    "subjects_per_batch": 2,
    "clips_per_subject": 2,
    "clip_frames": 16,
    "epochs": 3,
    "epochs_without_cross_entropy": 1,
    "warmup_epochs": 1,
    "learning_rate": 1e-3,
    "precision": "fp32",
    "device": "cpu",
    "mixup_probability": 0.5,
    "loggers": (),
}


@pytest.fixture(scope="module")
def sequences() -> Sequences:
    subjects = np.repeat(["001", "002", "003", "004"], 2)
    return Sequences(
        subject=subjects,
        walk=np.tile(["nm-01", "nm-02"], 4),
        view=np.repeat("090", 8),
        start=np.arange(8) * 20,
        length=np.repeat(18, 8),
        crc32c=np.zeros(8, np.uint32),
    )


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (160, 64, 64, 3), np.uint8)


Open = Callable[..., Trainer]


@pytest.fixture
def trainer(tmp_path: Path, sequences: Sequences, frames: np.ndarray) -> Open:
    def make(run: str = "run", progress: Progress = SILENT, stop: StopRequest | None = None, **changes: Any) -> Trainer:
        config = make_config({**SMALL, **changes})
        plan = BatchPlan(
            sequences,
            ["001", "002", "003", "004"],
            subjects_per_batch=config.data.subjects_per_batch,
            clips_per_subject=config.data.clips_per_subject,
            clip_frames=config.data.clip_frames,
            seed=config.run.seed,
        )

        @contextmanager
        def stream(start: int, num_steps: int) -> Iterator[Iterator[ClipBatch]]:
            def batches() -> Iterator[ClipBatch]:
                for step in range(start, start + num_steps):
                    planned = plan.batch(step)
                    clips = np.stack([frames[s : s + config.data.clip_frames] for s in planned.starts])
                    labels = torch.from_numpy(planned.labels)
                    yield ClipBatch(
                        step=step, clips=torch.from_numpy(clips), labels=labels, sequences=planned.sequences
                    )

            yield batches()

        def open_stream(start: int, num_steps: int) -> AbstractContextManager[Iterator[ClipBatch]]:
            return stream(start, num_steps)

        folder = tmp_path / run
        folder.mkdir(exist_ok=True)
        return Trainer(
            config=config,
            run=folder,
            plan=plan,
            channels=3,
            open_stream=open_stream,
            sequence_name=sequences.name,
            progress=progress,
            stop=stop or StopRequest(),
        )

    return make


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return state_in(folder / "checkpoint.pt")["model"]  # type: ignore[no-any-return]


@pytest.mark.parametrize("stop", [1, 3, 6])
def test_a_resumed_run_equals_an_undisturbed_one_to_the_last_bit(trainer: Open, tmp_path: Path, stop: int) -> None:
    undisturbed, resumed = Heard(), Heard()
    trainer("whole", undisturbed).train()
    trainer("parts", resumed, stop_after_steps=stop).train()
    result = trainer("parts", resumed).train(resume=True)
    assert result.steps == result.num_steps == 8
    assert [report.losses for report in undisturbed.details] == [report.losses for report in resumed.details]
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_the_last_epochs_have_no_cross_entropy_and_leave_the_classifiers_alone(trainer: Open, tmp_path: Path) -> None:
    heard = Heard()
    trainer(progress=heard, stop_after_steps=6).train()
    before = weights(tmp_path / "run")
    trainer(progress=heard).train(resume=True)
    after = weights(tmp_path / "run")
    assert ["cross_entropy" in report.losses for report in heard.details] == [True] * 6 + [False] * 2
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert not any("classifier" in name for name in changed)


def test_training_lowers_the_loss(trainer: Open) -> None:
    heard = Heard()
    changes = {"epochs": 12, "learning_rate": 3e-3, "mixup_probability": 0.0, "cutmix_probability": 0.0}
    trainer(progress=heard, **changes).train()
    totals = [report.losses["total"] for report in heard.details]
    assert np.mean(totals[-5:]) < 0.9 * np.mean(totals[:5])


def test_the_run_folder_is_a_model_ready_to_embed(trainer: Open, tmp_path: Path) -> None:
    trainer(stop_after_steps=2).train()
    model, saved = load_model(tmp_path / "run"), weights(tmp_path / "run")
    assert all(torch.equal(tensor, saved[name]) for name, tensor in model.state_dict().items())
    assert not model.training


def test_a_request_to_stop_leaves_a_checkpoint_to_resume_from(trainer: Open, tmp_path: Path) -> None:
    stop = StopRequest()

    def ask(done: int) -> None:
        assert stop.is_heard
        if done == 3:
            stop.signal = signal.SIGTERM

    result = trainer("stopped", Heard(ask), stop=stop).train()
    assert (result.steps, result.interrupted_by, stop.is_heard) == (3, signal.SIGTERM, False)
    trainer("stopped").train(resume=True)
    trainer("whole").train()
    whole, stopped = weights(tmp_path / "whole"), weights(tmp_path / "stopped")
    assert all(torch.equal(whole[name], stopped[name]) for name in whole)


def test_a_run_that_was_begun_with_another_way_to_compute_adam_is_continued(
    trainer: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adam = torch.optim.Adam
    with monkeypatch.context() as patch:  # as version 0.1.0
        patch.setattr(torch.optim, "Adam", lambda parameters, *, fused, **options: adam(parameters, **options))
        trainer(stop_after_steps=3).train()
    groups = state_in(tmp_path / "run" / "checkpoint.pt")["optimiser"]["param_groups"]
    assert [group["fused"] for group in groups] == [None]
    assert trainer().train(resume=True).steps == 8
    groups = state_in(tmp_path / "run" / "checkpoint.pt")["optimiser"]["param_groups"]
    assert [group["fused"] for group in groups] == [True]


def test_a_finished_run_that_is_resumed_opens_no_stream(trainer: Open, tmp_path: Path) -> None:
    trainer().train()
    before = (tmp_path / "run" / "checkpoint.pt").read_bytes()
    again = trainer()

    def refuse(first_step: int, num_steps: int) -> Any:
        raise AssertionError("nothing was to be read")

    again.open_stream = refuse
    result = again.train(resume=True)
    assert result.steps == result.num_steps == 8
    assert (tmp_path / "run" / "checkpoint.pt").read_bytes() == before


def test_the_caller_s_random_state_stays_as_it_is(trainer: Open) -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    trainer(stop_after_steps=2).train()
    assert torch.equal(torch.rand(3), expected)


def test_only_the_device_that_is_trained_on_is_seeded(trainer: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[int] = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeds.append)
    monkeypatch.setattr(torch.cuda, "manual_seed", seeds.append)
    trainer(stop_after_steps=2).train()
    assert seeds == []


def test_nan_stops_with_step_sequences_and_rate_and_keeps_the_checkpoint(trainer: Open, tmp_path: Path) -> None:
    trainer(stop_after_steps=2).train()
    before = weights(tmp_path / "run")
    job = trainer(learning_rate=1e38, warmup_epochs=0, checkpoint_every_steps=100)
    with pytest.raises(AttenGaitError, match=r"step \d+: .*learning rate .*; sequences 00\d/nm-0\d/090") as caught:
        job.train(resume=True)
    assert "\n" not in str(caught.value)
    after = weights(tmp_path / "run")
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_losses_that_are_read_a_step_later_are_the_same_and_none_is_left_out(
    trainer: Open, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    at_once, later = Heard(), Heard()
    trainer("at once", at_once).train()
    monkeypatch.setitem(trainer_module.STEPS_UNREAD, "cpu", 1)  # as on a GPU
    trainer("later", later, checkpoint_every_steps=3).train()
    assert [report.losses for report in later.details] == [report.losses for report in at_once.details]
    assert [report.step for report in later.details] == list(range(1, 9))
    first, second = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("at once", "later"))
    assert first == second


def test_nan_that_is_seen_a_step_later_names_its_own_step_and_keeps_the_checkpoint(
    trainer: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer(stop_after_steps=2).train()
    before = (tmp_path / "run" / "checkpoint.pt").read_bytes()
    broken = {"learning_rate": 1e38, "warmup_epochs": 0}
    with pytest.raises(AttenGaitError) as at_once:
        trainer(**broken).train(resume=True)
    monkeypatch.setitem(trainer_module.STEPS_UNREAD, "cpu", 1)
    for every in (100, 1):  # also where a checkpoint is due at the very step
        with pytest.raises(AttenGaitError) as later:
            trainer(**broken, checkpoint_every_steps=every).train(resume=True)
        assert str(later.value) == str(at_once.value)
        if every == 100:
            assert (tmp_path / "run" / "checkpoint.pt").read_bytes() == before


@pytest.mark.parametrize(("every", "logged"), [(1, [1, 2, 3, 4, 5, 6, 7, 8]), (3, [1, 3, 6, 8]), (100, [1, 8])])
def test_scalars_are_written_every_so_many_steps(trainer: Open, tmp_path: Path, every: int, logged: list[int]) -> None:
    trainer(log_every_steps=every).train()
    assert [values["step"] for values in read_metrics(tmp_path / "run")] == logged


def test_a_process_that_is_not_the_first_writes_nothing(trainer: Open, tmp_path: Path) -> None:
    settings = {"keep_checkpoints": 2, "profile_steps": 2, "checkpoint_every_steps": 2}
    one, other = Heard(), Heard()
    trainer("first", one, **settings).train()
    job = trainer("second", other, **settings)
    job.ranks = Ranks(rank=1)
    job.train()
    assert list((tmp_path / "second").iterdir()) == []
    assert {path.name for path in (tmp_path / "first").iterdir()} > {"checkpoints", "metrics.jsonl", "train.log"}
    assert [report.losses for report in one.details] == [report.losses for report in other.details]


def test_a_checkpoint_of_another_size_is_refused_naming_the_tensor_and_both_shapes(trainer: Open) -> None:
    trainer(stop_after_steps=1).train()
    with pytest.raises(AttenGaitError, match=r"does not fit: the tensor \S+ is \[.*\] there, \[.*\] in"):
        trainer(size="small").train(resume=True)


def test_a_kill_between_the_two_files_of_a_checkpoint_is_made_good_by_resuming(
    trainer: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer("whole").train()
    trainer("killed", stop_after_steps=4).train()
    write, written = checkpoint.write_atomically, []

    def die(path: Path, data: bytes) -> None:
        written.append(path.name)
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "write_atomically", die)
    with pytest.raises(KeyboardInterrupt):
        trainer("killed").train(resume=True)
    assert written == ["checkpoint.pt"]
    monkeypatch.setattr(checkpoint, "write_atomically", write)
    trainer("killed").train(resume=True)
    whole, killed = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "killed"))
    assert whole == killed


@pytest.mark.parametrize("damage", [b"", b"nonsense", None])
def test_a_damaged_checkpoint_is_one_sentence(trainer: Open, tmp_path: Path, damage: bytes | None) -> None:
    trainer(stop_after_steps=1).train()
    path = tmp_path / "run" / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:5000] if damage is None else damage)
    with pytest.raises(AttenGaitError, match="damaged"):
        trainer().train(resume=True)


def test_resuming_without_a_checkpoint_is_refused(trainer: Open) -> None:
    with pytest.raises(AttenGaitError, match=r"no checkpoint\.pt"):
        trainer().train(resume=True)


def test_too_few_classes_for_the_subjects_are_refused(trainer: Open) -> None:
    with pytest.raises(ParameterError, match="num_classes is 3, but must be 0 or at least 4"):
        trainer(num_classes=3).train()


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_trains(trainer: Open, precision: str) -> None:
    heard = Heard()
    trainer(progress=heard, precision=precision, epochs=1).train()  # two steps with cross entropy, two without
    exact = Heard()
    trainer("exact", exact, stop_after_steps=1).train()
    assert len(heard.details) == 4
    assert all(np.isfinite(report.losses["total"]) for report in heard.details)
    assert heard.details[0].losses["total"] == pytest.approx(exact.details[0].losses["total"], rel=0.02)


def test_torch_computes_as_the_settings_say(trainer: Open) -> None:
    backends: Any = torch.backends

    class Watching(Heard):  # type: ignore[misc, valid-type]
        def update(self, *arguments: Any, **more: Any) -> None:
            seen.add((backends.cudnn.conv.fp32_precision, torch.are_deterministic_algorithms_enabled()))

    before = backends.cudnn.conv.fp32_precision
    for deterministic in (False, True):
        seen = set[tuple[str, bool]]()
        trainer(progress=Watching(), deterministic=deterministic, stop_after_steps=2).train()
        assert seen == {("ieee", deterministic)}
    assert (backends.cudnn.conv.fp32_precision, torch.are_deterministic_algorithms_enabled()) == (before, False)


def test_tf32_on_a_cpu_is_refused(trainer: Open, tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="precision is 'tf32', but must be auto, fp32, bf16 or fp16 on the device"):
        trainer(precision="tf32").train()
    assert list((tmp_path / "run").iterdir()) == []


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_on_a_gpu_deterministic_runs_are_equal_to_the_last_bit_also_resumed(
    trainer: Open, tmp_path: Path, precision: str
) -> None:
    settings = {"device": "cuda", "precision": precision, "deterministic": True}
    for run in ("one", "two"):
        trainer(run, **settings).train()
    trainer("parts", stop_after_steps=3, **settings).train()
    trainer("parts", **settings).train(resume=True)
    one, two, parts = (weights(tmp_path / run) for run in ("one", "two", "parts"))
    assert all(torch.equal(one[name], two[name]) and torch.equal(one[name], parts[name]) for name in one)


def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(ParameterError, match="auto, cpu, cuda or cuda:N"):
        resolve_device("gpu", "fp32")
    with pytest.raises(ParameterError, match="CUDA devices"):
        resolve_device("cuda:99", "fp32")


def test_step_seeds_differ_and_stay_the_same_across_versions() -> None:
    seeds = {step_seed(seed, step) for seed in range(50) for step in range(200)}
    assert len(seeds) == 50 * 200
    assert (step_seed(0, 0), step_seed(7, 1000)) == (5374916932391592520, 8297064502893084727)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_the_record_of_a_run_survives_and_its_damage_is_one_sentence(tmp_path: Path) -> None:
    record = RunRecord(config=make_config({"seed": 3}), subjects=["001"], store={"sequences": 1})
    write_record(tmp_path, record)
    assert read_record(tmp_path) == record
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(AttenGaitError, match="damaged"):
        read_record(tmp_path)
    with pytest.raises(AttenGaitError, match="not the folder of a training run"):
        read_record(tmp_path / "nowhere")
