"""The public names: which there are, what they take, and that their examples run.

After a change that is meant, run `python tests/test_public_face.py` to write tests/data/public-names.txt anew.
"""

import doctest
import inspect
import logging
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import attengait
from attengait.synth.dataset import SynthConfig, write_walkers

STARS = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
FROZEN = Path(__file__).parent / "data" / "public-names.txt"


def public_names() -> str:
    """One line for each public name, with the names of its parameters, and for the members of a class."""
    lines = []
    for name in attengait.__all__:
        value = getattr(attengait, name)
        lines.append(f"{name}{parameters(value)}")
        if inspect.isclass(value) and not issubclass(value, Exception):
            own = [member for member in vars(value) if not member.startswith("_")]
            lines += sorted(f"    .{member}{parameters(getattr(value, member))}" for member in own)
    return "\n".join(lines) + "\n"


def parameters(value: Any) -> str:
    if not callable(value) or (inspect.isclass(value) and issubclass(value, Exception)):
        return ""
    parts, is_keyword = [], False
    for parameter in inspect.signature(value).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and not is_keyword:
            parts.append("*")
            is_keyword = True
        parts.append(
            {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "") + parameter.name
        )
    return f"({', '.join(parts)})"


def test_the_public_names_and_their_parameters_are_those_that_are_written_down() -> None:
    assert public_names() == FROZEN.read_text()


def test_names_are_shown_before_they_are_imported() -> None:
    code = (
        "import sys, attengait; print(*dir(attengait)); assert not {'torch', 'zarr', 'numpy', 'cv2'} & {*sys.modules}"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {*attengait.__all__, "__version__"} <= {*done.stdout.split()}
    with pytest.raises(AttributeError, match="module 'attengait' has no attribute 'identify'"):
        _ = attengait.identify


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """walkers, their store walkers.zarr, and a run on it."""
    folder = tmp_path_factory.mktemp("face")
    walks = ("nm-01", "nm-05", "bg-01", "cl-01")
    config = SynthConfig(subjects=2, walks=walks, views=(0, 90), frames=22, workers=1)
    write_walkers(folder / "walkers", config)
    return folder


@pytest.fixture(scope="module")
def chain(folder: Path) -> dict[str, Any]:
    """From frames to a table in Python: what one function returns, the next one takes."""
    walkers = folder / "walkers"
    summary = attengait.preprocess(
        "casia-b", folder / "walkers.zarr", frames=walkers / "rgb", silhouettes=walkers / "silh"
    )
    settings = {"subjects_per_batch": 2, "clips_per_subject": 2, "epochs": 2, "train_subjects": ("001-002",)}
    trained = attengait.train(summary, folder / "run", preset="demo", settings=settings)
    embeddings = attengait.embed(trained, summary, subjects="1-2")
    return {
        "summary": summary,
        "trained": trained,
        "store": attengait.open_store(summary),
        "model": attengait.load_model(trained),
        "embeddings": embeddings,
        "evaluated": attengait.evaluate(embeddings),
    }


def test_the_whole_way_can_be_gone_in_python(chain: dict[str, Any], folder: Path) -> None:
    store, model, embeddings = chain["store"], chain["model"], chain["embeddings"]
    assert len(store) == len(embeddings) == chain["summary"].written.num_sequences == 16
    assert chain["trained"].steps == chain["trained"].num_steps == 2
    for sequences in (store[3:5], [store[3], store[4]]):
        np.testing.assert_allclose(model.embed(sequences).numpy(), embeddings.features[3:5], atol=1e-4)
    np.testing.assert_allclose(model.embed(store[3]).numpy(), embeddings.features[3], atol=1e-4)
    direct = attengait.evaluate(folder / "run", store, subjects=["001", "002"])
    remark = f"2 of the 2 subjects are in the training set of {folder / 'run'}: 001, 002"
    assert direct == replace(chain["evaluated"], remarks=(remark, *chain["evaluated"].remarks))
    assert direct.num_subjects == 2


def test_a_selection_is_trained_on_and_its_rest_is_recognised(chain: dict[str, Any], tmp_path: Path) -> None:
    store = chain["store"]
    some = store.select(walks=["nm"])
    settings = {"subjects_per_batch": 2, "clips_per_subject": 2, "stop_after_steps": 1}
    trained = attengait.train(some, tmp_path / "run", preset="demo", settings=settings)
    assert trained.steps == 1
    with pytest.raises(attengait.AttenGaitError, match="belong to the training set"):
        attengait.embed(trained, store)
    with pytest.raises(attengait.AttenGaitError, match="was trained on another store"):
        attengait.train(store, tmp_path / "run", settings=settings, resume=True)
    assert attengait.train(some, tmp_path / "run", settings={"stop_after_steps": 2}, resume=True).steps == 2


def test_a_selection_trains_the_same_model_as_its_subjects_of_the_whole_store_wherever_frames_are_kept(
    chain: dict[str, Any], tmp_path: Path
) -> None:
    store = chain["store"]
    settings = {"subjects_per_batch": 2, "clips_per_subject": 2, "stop_after_steps": 2, "precision": "fp32"}
    weights = []
    for name, stores, changes in (
        ("whole", store, {"train_walks": ["cl"]}),
        ("some", store.select(walks="cl"), {"cache": "none"}),
        ("kept", store.select(walks="cl"), {"cache": "host"}),
    ):
        trained = attengait.train(stores, tmp_path / name, preset="demo", settings={**settings, **changes})
        weights.append(attengait.load_model(trained).state_dict())
    for other in weights[1:]:
        assert all(tensor.equal(other[name]) for name, tensor in weights[0].items())


def test_evaluation_says_what_it_needs(chain: dict[str, Any], folder: Path, tmp_path: Path) -> None:
    from attengait.evaluation import save_embeddings

    save_embeddings(tmp_path / "e.npz", chain["embeddings"])
    assert attengait.evaluate(tmp_path / "e.npz") == chain["evaluated"]
    assert attengait.evaluate(tmp_path / "e.npz", subjects="2").num_subjects == 1
    with pytest.raises(attengait.ParameterError, match=r"^store is None, but must be given with a model"):
        attengait.evaluate(folder / "run")
    with pytest.raises(attengait.ParameterError, match=r"^store is .*, but must be left out"):
        attengait.evaluate(chain["embeddings"], chain["store"])


def test_embedding_leaves_a_network_in_its_mode(chain: dict[str, Any]) -> None:
    model = attengait.load_model(chain["trained"])
    model.train()
    model.backbone.eval()
    before = {name: module.training for name, module in model.named_modules()}
    found = attengait.embed(model, chain["store"])
    assert {name: module.training for name, module in model.named_modules()} == before
    np.testing.assert_array_equal(found.features, chain["embeddings"].features)


@pytest.mark.parametrize("name", attengait.__all__)
def test_the_examples_of_a_docstring_run(
    name: str, chain: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(logging.getLogger("attengait"), "handlers", [])  # those that other tests left
    value = getattr(attengait, name)
    names = {"attengait": attengait, "np": np, **chain}
    names["result"] = chain["trained"] if name == "TrainingResult" else chain["evaluated"]
    finder = doctest.DocTestFinder()
    tests = [test for test in finder.find(value, name, globs=names) if test.examples]
    assert tests, f"{name} has no example"
    for test in tests:
        said: list[str] = []
        failures = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=said.append).failed
        assert not failures, "".join(said)


if __name__ == "__main__":
    FROZEN.write_text(public_names())
