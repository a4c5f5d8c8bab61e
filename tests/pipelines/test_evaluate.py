"""A protocol that fits nothing is refused before anything is embedded; the table says what the data lack."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import attengait
from attengait.cli.main import app
from attengait.errors import AttenGaitError, ParameterError
from attengait.evaluation import Embeddings, load_embeddings, save_embeddings
from attengait.model.config import ModelConfig
from attengait.model.loading import save_weights
from attengait.pipelines import embed as embedding

WALKS = [*(f"nm-{i:02d}" for i in range(1, 7)), "bg-01", "bg-02", "cl-01", "cl-02"]
ROWS = [(s, w, v) for s in ("075", "076", "077", "078", "079") for w in WALKS for v in ("000", "090", "180")]


@pytest.fixture
def store(data: Path) -> attengait.Store:
    """Walks nm-01 and nm-05 of two subjects at two views."""
    return attengait.open_store(data / "walkers-0.1.0.zarr")


@pytest.fixture
def network() -> attengait.AttenGait:
    return attengait.AttenGait(ModelConfig(widths=(4, 8, 8), part_width=8, embedding_size=4))


def made(rows: list[tuple[str, str, str]]) -> Embeddings:
    """Embeddings of subjects that are easily told apart."""
    subjects, sequences, views = (np.array(column) for column in zip(*rows, strict=True))
    random = np.random.default_rng(0)
    identity = {subject: random.normal(size=(4, 8)) for subject in sorted({s for s, _, _ in rows})}
    features = np.stack([identity[s] + 0.01 * random.normal(size=(4, 8)) for s in subjects]).astype(np.float32)
    return Embeddings(features=features, subjects=subjects, sequences=sequences, views=views)


def evaluate_file(folder: Path, rows: list[tuple[str, str, str]], *options: str) -> tuple[int, str, dict[str, object]]:
    """Exit status, what is on the screen with its lines joined, and the JSON of `attengait evaluate --embeddings`."""
    save_embeddings(folder / "e.npz", made(rows))
    words = ["evaluate", "--embeddings", str(folder / "e.npz"), "--json", str(folder / "e.json"), *options]
    done = CliRunner().invoke(app, words)
    written = json.loads((folder / "e.json").read_text()) if done.exit_code == 0 else {}
    return done.exit_code, " ".join(done.output.split()), written


def test_a_protocol_that_fits_no_sequence_of_a_store_is_refused_before_embedding(
    store: attengait.Store, network: attengait.AttenGait, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding, "SequenceStream", None)  # embedding would fail here
    fits_one = store.select(walks=["nm-01"])
    with pytest.raises(
        AttenGaitError, match=r"^protocol casia-b-cross-view fits no sequence of .*0\.zarr: .*; casia-b fits$"
    ):
        attengait.evaluate(network, store, protocol="casia-b-cross-view")
    with pytest.raises(AttenGaitError, match=r"have the walks nm-01 and the views 072, 090; none of "):
        attengait.evaluate(network, fits_one)
    with pytest.raises(TypeError):
        attengait.evaluate(network, store)


def test_what_needs_no_network_is_refused_before_embedding(
    store: attengait.Store, network: attengait.AttenGait, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding, "SequenceStream", None)  # embedding would fail here
    for protocol, options, message in (
        ("casia-b", {"only_common": True}, "only_common is True, but must be left out where there is one set"),
        ("casia-b", {"fuse": made(ROWS)}, "the second embeddings lack 8 sequences of the other"),
        ("cross-walk", {"rerank": True}, "rerank is True, but must be left out where a sequence is probe and gallery"),
    ):
        with pytest.raises(AttenGaitError, match=message):
            attengait.evaluate(network, store, protocol=protocol, options=attengait.EvaluationOptions(**options))


def test_a_protocol_that_fits_some_is_embedded_and_evaluated(
    store: attengait.Store, network: attengait.AttenGait
) -> None:
    result = attengait.evaluate(network, store)
    assert (result.num_subjects, result.num_probes, result.num_gallery) == (2, 4, 4)
    assert result == attengait.evaluate(attengait.embed(network, store))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_network_computes_in_the_precision_asked_for_and_the_result_says_so(
    store: attengait.Store, network: attengait.AttenGait, tmp_path: Path, precision: str
) -> None:
    kinds = set()
    network.backbone.register_forward_hook(lambda module, frames, maps: kinds.add(maps.dtype))
    embeddings = attengait.embed(network, store, precision=precision)
    assert kinds == {torch.float32 if precision == "fp32" else torch.bfloat16}
    save_embeddings(tmp_path / "e.npz", embeddings)
    loaded = load_embeddings(tmp_path / "e.npz")
    assert (embeddings.precision, embeddings.select(np.array([0])).precision, loaded.precision) == (precision,) * 3
    assert attengait.evaluate(loaded).to_dict()["precision"] == precision
    assert attengait.evaluate(network, store, precision=precision).precision == precision


def test_a_precision_that_is_unknown_or_not_there_is_refused(
    store: attengait.Store, network: attengait.AttenGait
) -> None:
    with pytest.raises(ParameterError, match="precision is 'fp8', but must be one of auto, fp32, tf32, bf16, fp16"):
        attengait.embed(network, store, precision="fp8")
    with pytest.raises(ParameterError, match="precision is 'tf32', but must be auto, fp32, bf16 or fp16 on the device"):
        attengait.evaluate(network, store, precision="tf32", device="cpu")
    with pytest.raises(ParameterError, match="precision is 'bf16', but must be left out where there are embeddings"):
        attengait.evaluate(made(ROWS), precision="bf16")


def test_the_command_line_takes_a_precision_and_records_it(
    store: attengait.Store, network: attengait.AttenGait, tmp_path: Path
) -> None:
    save_weights(network, tmp_path / "w.safetensors")
    words = [str(tmp_path / "w.safetensors"), str(store.location), "--device", "cpu", "--precision", "bf16"]
    done = CliRunner().invoke(app, ["embed", *words, "--out", str(tmp_path / "e.npz")])
    assert done.exit_code == 0, done.output
    assert load_embeddings(tmp_path / "e.npz").precision == "bf16"
    done = CliRunner().invoke(app, ["evaluate", *words, "--json", str(tmp_path / "e.json")])
    assert done.exit_code == 0, done.output
    assert json.loads((tmp_path / "e.json").read_text())["precision"] == "bf16"
    done = CliRunner().invoke(app, ["evaluate", "--embeddings", str(tmp_path / "e.npz"), "--precision", "bf16"])
    assert "must be given without RUN, STORE, --precision and --gpus" in str(done.exception)


def test_a_file_of_another_program_does_not_say_the_precision(tmp_path: Path) -> None:
    arrays = {"features": np.ones((1, 4, 8), np.float32), "subjects": np.array(["1"]), "views": np.array(["000"])}
    np.savez(tmp_path / "e.npz", **arrays, sequences=np.array(["nm-01"]), precision=np.array("double"))
    assert load_embeddings(tmp_path / "e.npz").precision is None
    axes = np.array(["sequence", "part", "number"])
    for wrong in (np.array("fp64"), np.array(["fp32"]), np.array(32)):
        np.savez(tmp_path / "e.npz", **arrays, sequences=np.array(["nm-01"]), precision=wrong, feature_axes=axes)
        with pytest.raises(AttenGaitError, match=r"precision is .*, but must be one of fp32, tf32, bf16, fp16$"):
            load_embeddings(tmp_path / "e.npz")


def test_a_protocol_that_fits_no_sequence_of_a_file_is_refused(tmp_path: Path) -> None:
    embeddings = made([("00002", walk, view) for walk in ("00", "01") for view in ("000", "270")])
    save_embeddings(tmp_path / "oumvlp.npz", embeddings)
    with pytest.raises(
        AttenGaitError, match=r"^protocol casia-b fits no .*oumvlp\.npz: .*; oumvlp, oumvlp-cross-view fit$"
    ):
        attengait.evaluate(tmp_path / "oumvlp.npz")
    done = CliRunner().invoke(app, ["evaluate", "--embeddings", str(tmp_path / "oumvlp.npz")])
    assert isinstance(done.exception, AttenGaitError)
    assert done.exception.exit_status == 1
    assert not done.stdout


def test_a_subject_without_gallery_is_counted_as_the_protocol_says(tmp_path: Path) -> None:
    rows = [row for row in ROWS if row[0] != "079" or row[1] not in WALKS[:4]]
    status, screen, written = evaluate_file(tmp_path, rows)
    assert status == 0
    assert written["mean"] == pytest.approx(0.8)
    assert written["counts"] == {
        "subjects": 5,
        "gallery_subjects": 4,
        "probes": 90,
        "gallery": 48,
        "tied_probes": 0,
        "unmatched_probes": 18,
        "missing_sequences": 12,
        "repeated_rows": 0,
        "unused_sequences": 0,
    }
    assert written["missing"] == ["no gallery of subject 079"]
    assert "no gallery of subject 079 18 probes whose subject has no gallery item at any of the other views" in screen


def test_the_order_of_features_is_for_the_files_that_do_not_say_it(tmp_path: Path) -> None:
    embeddings = made(ROWS)
    arrays = {name: getattr(embeddings, name) for name in ("subjects", "sequences", "views")}
    np.savez(tmp_path / "opengait.npz", features=embeddings.features.transpose(0, 2, 1), **arrays)
    save_embeddings(tmp_path / "ours.npz", embeddings)
    ours, opengait, table = (str(tmp_path / name) for name in ("ours.npz", "opengait.npz", "t.json"))
    order, many = ("--feature-order", "parts-last"), ("--distance", "part-l2", "--json", table)
    for first, second in ((ours, opengait), (opengait, ours)):
        for words in (["evaluate", "--embeddings", first, "--fuse", second], ["compare", first, second]):
            done = CliRunner().invoke(app, [*words, *many, *order])
            assert done.exit_code == 0, done.exception
            figures = json.loads(Path(table).read_text()).get("figures", {})
            assert [each["difference"] for each in figures.values()] == [0.0] * len(figures), "both hold the same"
    drawn = CliRunner().invoke(app, ["map", opengait, "--out", str(tmp_path / "m.png"), *order])
    assert drawn.exit_code == 0, drawn.exception
    for words in (
        ["evaluate", "--embeddings", ours],
        ["evaluate", "--embeddings", ours, "--fuse", ours],
        ["compare", ours, ours],
        ["map", ours, "--out", str(tmp_path / "n.png")],
    ):
        done = CliRunner().invoke(app, [*words, *order])
        assert isinstance(done.exception, ParameterError)
        assert "feature_order is 'parts-last', but must be left out: the order of" in str(done.exception)
    done = CliRunner().invoke(app, ["compare", "run", "run", "--store", "s", *order])
    assert "feature_order is 'parts-last', but must be left out without .npz files" in str(done.exception)


def test_missing_walks_are_named(tmp_path: Path) -> None:
    _, screen, written = evaluate_file(tmp_path, [row for row in ROWS if row[1] not in ("nm-03", "nm-04", "bg-02")])
    assert written["missing"] == ["no gallery of 2 walks: nm-03, nm-04", "no bg probe of walk bg-02"]
    assert "no gallery of 2 walks: nm-03, nm-04 no bg probe of walk bg-02" in screen


def test_repeated_rows_are_named(tmp_path: Path) -> None:
    _, screen, written = evaluate_file(tmp_path, ROWS + ROWS)
    assert "150 repeated rows of sequences that are there already, each row counts: 075/bg-01/000, " in screen
    assert isinstance(written["remarks"], list)
    assert written["remarks"][0].startswith("150 repeated rows")


def test_the_order_of_features_can_be_said_for_a_file_that_does_not_say_it(tmp_path: Path) -> None:
    embeddings = made(ROWS)
    arrays = {name: getattr(embeddings, name) for name in ("subjects", "sequences", "views")}
    np.savez(tmp_path / "opengait.npz", features=embeddings.features.transpose(0, 2, 1), **arrays)
    words = ["evaluate", "--embeddings", str(tmp_path / "opengait.npz"), "--distance", "part-l2"]
    refused = CliRunner().invoke(app, words)
    assert isinstance(refused.exception, AttenGaitError)
    assert "--feature-order parts-last" in str(refused.exception)
    done = CliRunner().invoke(app, [*words, "--feature-order", "parts-last", "--json", str(tmp_path / "a.json")])
    assert done.exit_code == 0
    assert json.loads((tmp_path / "a.json").read_text()) == attengait.evaluate(embeddings, distance="part-l2").to_dict()
    alone = CliRunner().invoke(app, ["evaluate", "run", "store", "--feature-order", "parts-last"])
    assert "--feature-order is parts-last, but must be given with --embeddings or --fuse only" in str(alone.exception)


def test_the_order_of_features_holds_for_the_file_that_is_fused(tmp_path: Path) -> None:
    embeddings = made(ROWS)
    noise = np.random.default_rng(1).normal(size=embeddings.features.shape)
    other = replace(embeddings, features=noise.astype(np.float32))
    for name, these in (("a", embeddings), ("b", other)):
        arrays = {key: getattr(these, key) for key in ("subjects", "sequences", "views")}
        np.savez(tmp_path / f"{name}.npz", features=these.features.transpose(0, 2, 1), **arrays)
    words = ["evaluate", "--embeddings", str(tmp_path / "a.npz"), "--fuse", str(tmp_path / "b.npz")]
    words += ["--distance", "part-l2", "--feature-order", "parts-last", "--json", str(tmp_path / "t.json")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.exception
    expected = attengait.evaluate(
        embeddings, distance="part-l2", options=attengait.EvaluationOptions(fuse=other)
    ).to_dict()
    assert json.loads((tmp_path / "t.json").read_text()) == expected
    assert expected["mean"] < attengait.evaluate(embeddings, distance="part-l2").mean


def test_subjects_are_chosen_of_both_models_that_are_fused(tmp_path: Path) -> None:
    first, second = made(ROWS), made(ROWS[:100] + ROWS[130:])
    noise = np.random.default_rng(1).normal(size=second.features.shape)
    second = replace(second, features=noise.astype(np.float32))
    few = [embeddings.select(np.isin(embeddings.subjects, ["075", "076"])) for embeddings in (first, second)]
    expected = attengait.evaluate(few[0], options=attengait.EvaluationOptions(fuse=few[1])).to_dict()
    save_embeddings(tmp_path / "first.npz", first)
    save_embeddings(tmp_path / "second.npz", second)
    words = ["evaluate", "--embeddings", str(tmp_path / "first.npz"), "--fuse", str(tmp_path / "second.npz")]
    done = CliRunner().invoke(app, [*words, "--subjects", "75-76", "--json", str(tmp_path / "t.json")])
    assert done.exit_code == 0, done.exception
    assert json.loads((tmp_path / "t.json").read_text()) == expected
    refused = CliRunner().invoke(app, [*words, "--subjects", "75-79"])
    assert "the second embeddings lack 30 sequences of the other" in str(refused.exception)
    more = attengait.EvaluationOptions(fuse=first)
    with pytest.raises(AttenGaitError, match="the first embeddings lack 60 sequences of the other"):
        attengait.evaluate(few[0], subjects="75-78", options=more)
    (tmp_path / "p.json").write_text(json.dumps({"TRAIN_SET": [], "TEST_SET": ["075", "076", "077", "078"]}))
    with pytest.raises(AttenGaitError, match="the first embeddings lack 60 sequences of the other"):
        attengait.evaluate(few[0], options=replace(more, partition=tmp_path / "p.json"))


def test_the_precision_of_two_models_that_are_fused_is_said_where_it_differs() -> None:
    first, second = (replace(made(ROWS), precision=name) for name in ("fp32", "bf16"))
    alike = attengait.evaluate(first, options=attengait.EvaluationOptions(fuse=first))
    assert (alike.precision, alike.remarks) == ("fp32", ())
    fused = attengait.evaluate(first, options=attengait.EvaluationOptions(fuse=second))
    assert fused.precision is None
    assert fused.remarks == ("the first model was computed in fp32, the second in bf16",)


def test_subjects_may_come_from_an_iterator_that_is_asked_more_than_once() -> None:
    both = made(ROWS)
    two = attengait.compare(both, both, subjects=iter(["075", "076"]))
    assert two.to_dict() == attengait.compare(both, both, subjects=["075", "076"]).to_dict()
    options = attengait.EvaluationOptions(fuse=both)
    assert attengait.evaluate(both, subjects=iter(["075", "076"]), options=options).num_subjects == 2


def test_two_models_are_compared_on_a_store_and_a_store_without_a_model_is_refused(
    store: attengait.Store, network: attengait.AttenGait, tmp_path: Path
) -> None:
    other = attengait.AttenGait(ModelConfig(widths=(4, 8, 8), part_width=8, embedding_size=4))
    for name, model in (("a", network), ("b", other)):
        save_weights(model, tmp_path / f"{name}.safetensors")
    words = ["compare", str(tmp_path / "a.safetensors"), str(tmp_path / "b.safetensors"), "--bootstrap", "20"]
    done = CliRunner().invoke(app, [*words, "--store", str(store.location), "--json", str(tmp_path / "c.json")])
    assert done.exit_code == 0, done.output
    rank1 = json.loads((tmp_path / "c.json").read_text())["figures"]["rank1"]
    assert rank1["first"] == attengait.evaluate(network, store).mean
    assert rank1["second"] == attengait.evaluate(other, store).mean
    embeddings = attengait.embed(network, store)
    with pytest.raises(ParameterError, match=r"store is .*, but must be left out where both are embeddings"):
        attengait.compare(embeddings, embeddings, store)


def test_a_partition_chooses_what_is_embedded(
    store: attengait.Store, network: attengait.AttenGait, tmp_path: Path
) -> None:
    one, other = sorted({str(name) for name in store.sequences.subject})
    (tmp_path / "p.json").write_text(json.dumps({"TRAIN_SET": [one], "TEST_SET": [other]}))
    options = attengait.EvaluationOptions(partition=tmp_path / "p.json")
    result = attengait.evaluate(network, store, options=options)
    assert result == attengait.evaluate(network, store, subjects=[other])
    assert result.num_subjects == 1
    with pytest.raises(ParameterError, match=r"subjects is .*, but must be left out where there is a partition"):
        attengait.evaluate(network, store, subjects=[other], options=options)


def test_a_device_is_used_for_distances_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from attengait.pipelines import evaluate as pipeline

    with pytest.raises(ParameterError, match="device is 'gpu', but must be auto, cpu, cuda or cuda:N"):
        attengait.evaluate(made(ROWS), device="gpu")
    expected = attengait.evaluate(made(ROWS))
    monkeypatch.setattr(pipeline, "_device", lambda device, embeddings: torch.device("cpu"))
    assert attengait.evaluate(made(ROWS)).to_dict() == expected.to_dict()
