"""Checkpoints and records: whole and of one run, or refused in one sentence that names the file."""

import contextlib
import io
import json
import logging
import os
import random
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import rewrite_as_0_1_0, state_in, state_of_0_1_0
from hypothesis import given, settings
from hypothesis import strategies as st

from attengait.errors import AttenGaitError
from attengait.model.config import ModelConfig
from attengait.model.loading import load_model
from attengait.model.net import AttenGait
from attengait.model.run_folder import RUNTIME_SETTINGS
from attengait.training.archive import check_pickle
from attengait.training.checkpoint import RunRecord, load_checkpoint, read_record, save_checkpoint, write_record
from attengait.training.config import make_config, settings_of

CONFIG = ModelConfig(widths=(1, 1, 1), part_width=1, embedding_size=1, blocks_per_stage=1, num_classes=2)
RECORD = RunRecord(
    config=make_config({"seed": 3, "learning_rate": 0.25, "train_subjects": ["001", "002"]}),
    subjects=["001", "002"],
    store={"sequences": 8, "sha256": "82d3", "modality": "flow"},
)

RECORD_TEXT = json.dumps(
    {"config": settings_of(RECORD.config), "subjects": RECORD.subjects, "store": RECORD.store}, default=list
)

Parts = tuple[AttenGait, torch.optim.Adam, torch.amp.GradScaler]


def parts() -> Parts:
    torch.manual_seed(0)
    model = AttenGait(CONFIG)
    return model, torch.optim.Adam(model.parameters(), lr=0.0, eps=1e-7), torch.amp.GradScaler("cpu", enabled=False)


def stepped() -> Parts:
    model, optimiser, scaler = parts()
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 0.5)
    optimiser.param_groups[0]["lr"] = 0.1
    optimiser.step()
    return model, optimiser, scaler


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("run")
    write_record(run, RECORD)
    model, optimiser, scaler = stepped()
    options: dict[str, Any] = {"model": model, "optimiser": optimiser, "scaler": scaler}
    save_checkpoint(run, step=5, **options, record_sha256=RECORD.sha256)
    return run


@pytest.fixture
def run(saved: Path, tmp_path: Path) -> Path:
    return shutil.copytree(saved, tmp_path / "run")


def restore(run: Path) -> tuple[int, dict[str, Any], dict[str, Any]]:
    model, optimiser, scaler = parts()
    sha256 = read_record(run).sha256
    step = load_checkpoint(run, model=model, optimiser=optimiser, scaler=scaler, record_sha256=sha256)
    return step, dict(model.state_dict()), optimiser.state_dict()


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return bool(a.keys() == b.keys()) and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(equal, a, b))
    return bool(type(a) is type(b) and a == b)


def refusal(act: Callable[[], object]) -> str:
    with pytest.raises(AttenGaitError) as caught:
        act()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_checkpoint_comes_back(saved: Path) -> None:
    step, weights, optimiser = restore(saved)
    model, expected, _ = stepped()
    assert step == 5
    assert equal(weights, dict(model.state_dict()))
    assert equal(optimiser["state"], expected.state_dict()["state"])


@pytest.mark.parametrize(("name", "flips"), [("config.json", 300), ("model.safetensors", 80), ("checkpoint.pt", 40)])
def test_a_flipped_bit_is_refused_or_changes_nothing(run: Path, name: str, flips: int) -> None:
    read: dict[str, Callable[[], Any]] = {
        "config.json": lambda: (read_record(run).config, read_record(run).subjects, read_record(run).store),
        "model.safetensors": lambda: dict(load_model(run).state_dict()),
        "checkpoint.pt": lambda: restore(run),
    }
    expected = read[name]()
    path, chance = run / name, random.Random(0)
    whole = path.read_bytes()
    num_refused = 0
    for _ in range(flips):
        data = bytearray(whole)
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        path.write_bytes(data)
        try:
            assert equal(read[name](), expected)
        except AttenGaitError as refused:
            text = str(refused)
            num_refused += 1
            assert str(path) in text
            assert "\n" not in text
    assert num_refused > 0.8 * flips


def test_a_record_that_was_edited_says_what_to_do(run: Path) -> None:
    path = run / "config.json"
    path.write_text(path.read_text().replace('"seed": 3', '"seed": 4'))
    text = refusal(lambda: read_record(run))
    assert f"{path} was changed after it was written" in text
    assert "start a new run" in text
    assert f"--set changes {', '.join(sorted(RUNTIME_SETTINGS))}" in text
    assert refusal(lambda: load_model(run)) == text
    load_model(run / "model.safetensors")  # the file alone needs no record


def test_where_a_run_computes_does_not_bind_its_files() -> None:
    elsewhere = make_config({**settings_of(RECORD.config), "device": "cuda", "cache": "host", "stop_after_steps": 3})
    assert RunRecord(config=elsewhere, subjects=RECORD.subjects, store=RECORD.store).sha256 == RECORD.sha256


@pytest.mark.parametrize("name", ["checkpoint.pt", "model.safetensors"])
def test_a_file_of_another_run_is_refused(run: Path, name: str) -> None:
    write_record(run, RunRecord(config=make_config({"seed": 4}), subjects=["001"], store={}))
    act = (lambda: restore(run)) if name == "checkpoint.pt" else (lambda: load_model(run))
    assert f"{run / name} belongs to another run than {run / 'config.json'}" in refusal(act)


def test_a_run_of_0_1_0_continues_and_says_once_that_it_has_no_checksums(
    run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    record = json.loads((run / "config.json").read_text())
    del record["sha256"]
    (run / "config.json").write_text(json.dumps(record, indent=2))
    rewrite_as_0_1_0(run / "checkpoint.pt")
    assert restore(run)[0] == restore(run)[0] == 5
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    names = [text.partition(" carries no checksums")[0] for text in said]
    assert names == [str(run / "config.json"), str(run / "checkpoint.pt")]


def test_the_archive_s_own_checksums_are_compared_where_there_are_no_others(run: Path) -> None:
    path = run / "checkpoint.pt"
    rewrite_as_0_1_0(path)
    weights = torch.load(path, weights_only=True)["model"]["spatial.kernels.0"].numpy().tobytes()
    data = path.read_bytes()
    at = data.index(weights)
    path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    assert "the checksum of its record" in refusal(lambda: restore(run))


DAMAGE: dict[str, Callable[[dict[str, Any]], object]] = {
    "step is -1": lambda state: state.update(step=-1),
    "step is True": lambda state: state.update(step=True),
    "has no model": lambda state: state.pop("model"),
    "'more' is unknown": lambda state: state.update(more=1),
    "is no dictionary of tensors": lambda state: state.update(model=[1]),
    "not finite": lambda state: state["model"]["spatial.kernels.0"].fill_(float("nan")),
    "eps is 1.0, but 1e-07 in this run": lambda state: state["optimiser"]["param_groups"][0].update(eps=1.0),
    "exp_avg of parameter 0": lambda state: state["optimiser"]["state"][0].update(exp_avg=torch.zeros(3)),
}


@pytest.mark.parametrize("part", DAMAGE)
def test_a_checkpoint_made_by_hand_is_refused(run: Path, part: str) -> None:
    path = run / "checkpoint.pt"
    state = state_of_0_1_0(path)
    DAMAGE[part](state)
    torch.save(state, path)
    text = refusal(lambda: restore(run))
    assert str(path) in text
    assert part in text


def tree(shared: Any, depth: int) -> Any:
    """Few bytes in a pickle, which writes a shared value once; 1,000 to the power of `depth` values to look at."""
    for _ in range(depth):
        shared = [shared] * 1000
    return shared


@pytest.mark.parametrize(
    ("value", "part"),
    [
        (tree(1, 6), "it holds more than 100,000 values"),
        (tree(1, 9), "it is nested too deeply"),
        (tree("a" * 1_000_000, 1), "it holds texts that are too long"),
        ({"a" * 1_000_000: tree(1, 1)}, "it holds texts that are too long"),
        (tree(torch.zeros(100_000), 1), "its tensors are larger than the file"),
    ],
)
def test_a_small_checkpoint_that_means_much_is_refused(run: Path, value: Any, part: str) -> None:
    path = run / "checkpoint.pt"
    torch.save({**state_in(path), "scaler": value}, path)
    assert refusal(lambda: restore(run)) == f"{path} is damaged: {part}"


class Nested:
    """Pickles as what unpickling would call."""

    def __reduce__(self) -> Any:
        return (print, ("ran",))


def test_a_hostile_checkpoint_is_refused_before_torch_reads_it(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("torch was given it")

    path = run / "checkpoint.pt"
    whole = path.read_bytes()
    monkeypatch.setattr(torch, "load", refuse)
    torch.save({"step": Nested()}, path)
    assert "the name '__builtin__ print'" in refusal(lambda: restore(run))
    assert capsys.readouterr().out == ""
    with zipfile.ZipFile(io.BytesIO(whole)) as source:
        entries = {name: source.read(name) for name in source.namelist()}
    top = next(iter(entries)).partition("/")[0]
    for pickled, part in (
        # A tuple of the same tuple twice, of the same twice, ...: as a key it is hashed in 2^60 steps.
        (b"\x80\x02}(K\x01\x85" + b"q\x00h\x00\x86" * 60 + b"K\x01u.", "a key that is neither a text nor a number"),
        (
            b"\x80\x02(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuJ\xff\xff\xff\x7ftQ.",
            "another size",
        ),
    ):
        with zipfile.ZipFile(path, "w") as target:
            for name, data in entries.items():
                target.writestr(name, pickled if name == f"{top}/data.pkl" else data)
        assert part in refusal(lambda: restore(run))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        target.writestr("archive/data.pkl", bytes(1 << 20))
    assert "compressed" in refusal(lambda: restore(run))


@settings(derandomize=True, deadline=None, max_examples=100)
@given(data=st.binary(max_size=60))
def test_any_bytes_are_a_pickle_of_a_checkpoint_or_refused(data: bytes) -> None:
    with contextlib.suppress(ValueError):  # the only exception that there may be
        check_pickle(b"\x80\x02" + data + b".", {})


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@settings(derandomize=True, deadline=None, max_examples=100)
@given(data=st.data())
def test_a_record_with_other_values_is_refused_or_has_the_right_types(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "config.json"
    # No digest: as in a file that somebody wrote.
    document = json.loads(RECORD_TEXT)
    place = data.draw(st.sampled_from([document, document["config"], document["store"]]))
    place[data.draw(st.sampled_from([*place, "new"]))] = data.draw(VALUES)
    path.write_text(json.dumps(document))
    try:
        record = read_record(path.parent)
    except AttenGaitError as refused:
        text = str(refused)
    else:
        text = ""
        assert make_config(document["config"]) == record.config
        assert all(isinstance(name, str) for name in record.subjects)
    assert text == "" or (str(path) in text and len(text) < 800)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
        ('{"config": ' + "9" * 5000 + "}", "a whole number of 5000 digits"),
        ('{"config": NaN}', "it holds NaN"),
        ('{"config": 1e999}', "'1e999', which is too large"),
        ('{"config": 1, "config": 2}', "its key 'config' occurs twice"),
        ("[]", "it is not a JSON object"),
        ("{}", "it has no config"),
        ('{"config": null, "subjects": [], "store": {}}', "config is None, but must be an object"),
        ('{"config": {}, "subjects": [1], "store": {}}', "subjects is a list of other things than names"),
        ('{"config": {}, "subjects": [], "store": {"stores": [{}]}}', "name is None, but must be a text"),
        ('{"config": {"epochs": true}, "subjects": [], "store": {}}', "epochs is True, but must be a whole number"),
        ('{"config": {"epochs": [1]}, "subjects": [], "store": {}}', "epochs is [1], but must be a whole number"),
        ('{"config": {"num_classes": 100000000}, "subjects": [], "store": {}}', "num_classes is 100000000, but must"),
        ('{"config": {"blocks_per_stage": 1000000000}, "subjects": [], "store": {}}', "but must be at most 100"),
        ('{"config": {"learning_rate": 99999999999999999999}, "subjects": [], "store": {}}', "a smaller number"),
        ('{"config": {"epoch": 1}, "subjects": [], "store": {}}', "setting is 'epoch'"),
        ('{"config": {}, "subjects": [], "store": {}, "more": 1}', "its key 'more' is unknown"),
    ],
)
def test_a_strange_record_is_one_sentence_with_file_and_key(tmp_path: Path, text: str, part: str) -> None:
    (tmp_path / "config.json").write_text(text)
    said = refusal(lambda: read_record(tmp_path))
    assert said.startswith(f"{tmp_path / 'config.json'} is damaged or of another version: ")
    assert part in said


def test_a_named_pipe_is_not_waited_for(run: Path) -> None:
    for name, act in (("config.json", lambda: read_record(run)), ("checkpoint.pt", lambda: restore(run))):
        (run / name).rename(run / "aside")
        os.mkfifo(run / name)
        assert "it is a named pipe" in refusal(act)
        (run / name).unlink()
        (run / "aside").rename(run / name)
