"""A map of embeddings shows people who are apart as groups that are apart."""

import sys
from importlib import import_module
from pathlib import Path

import cv2
import numpy as np
import pytest

from attengait.errors import AttenGaitError, ParameterError
from attengait.evaluation import Embeddings, save_embeddings
from attengait.report.embedding_map import MOST_COLOURS, map_embeddings

attengait = import_module("command").attengait


def embeddings(num_subjects: int, each: int = 8) -> Embeddings:
    """People whose embeddings lie around a point of their own."""
    rng = np.random.default_rng(0)
    subjects = np.repeat([f"{i:03d}" for i in range(num_subjects)], each)
    centres = rng.normal(size=(num_subjects, 62, 4)).repeat(each, axis=0)
    return Embeddings(
        features=(centres + 0.1 * rng.normal(size=centres.shape)).astype(np.float32),
        subjects=subjects,
        views=np.tile(["000", "090"], len(subjects) // 2),
        sequences=np.array([f"nm-{i:02d}" for i in range(len(subjects))]),
        feature_order="parts-first",
    )


def test_people_who_are_apart_are_apart_on_the_map_and_it_is_the_same_again(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    made = embeddings(6)
    drawn = map_embeddings(made, tmp_path / "map.png")
    again = map_embeddings(made, tmp_path / "again.png")
    assert np.array_equal(drawn.points, again.points)
    assert (tmp_path / "map.png").read_bytes() == (tmp_path / "again.png").read_bytes()
    distances = np.linalg.norm(drawn.points[:, None] - drawn.points[None], axis=-1)
    np.fill_diagonal(distances, np.inf)
    assert np.array_equal(made.subjects[distances.argmin(1)], made.subjects), "the nearest is of the same person"
    other = map_embeddings(made, tmp_path / "other.png", seed=1)
    assert not np.array_equal(drawn.points, other.points)
    assert (drawn.coloured, drawn.num_grey) == ([f"{i:03d}" for i in range(6)], 0)


def test_colours_go_to_those_with_the_most_sequences_and_the_rest_is_counted(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    made = embeddings(MOST_COLOURS + 5, 4)
    made = made.select((made.subjects != "003") | (made.views == "000"))  # two sequences fewer
    save_embeddings(tmp_path / "e.npz", made)
    done = attengait("map", tmp_path / "e.npz", "--out", tmp_path / "map.png", "--most", 90)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{tmp_path}/map.png: 90 sequences; 18 subjects have a colour, 5 more are grey\n"
    picture = cv2.imread(str(tmp_path / "map.png"))
    assert (picture == 204).all(axis=-1).any(), "grey points"
    drawn = map_embeddings(made, tmp_path / "all.png")
    assert "003" not in drawn.coloured
    assert (len(drawn.coloured), drawn.num_grey) == (MOST_COLOURS, 5)


def test_what_is_no_map_is_refused_in_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = embeddings(2)
    with pytest.raises(ParameterError, match=r"out is map.jpg, but must be a file that ends in .png"):
        map_embeddings(made, "map.jpg")
    with pytest.raises(ParameterError, match="most is 2, but must be at least 3"):
        map_embeddings(made, tmp_path / "map.png", most=2)
    with pytest.raises(AttenGaitError, match="there are 2 embeddings, but a map needs at least 3"):
        map_embeddings(made.select(np.arange(2)), tmp_path / "map.png")
    for name in ("sklearn", "sklearn.decomposition", "sklearn.manifold"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(AttenGaitError, match=r"a map of embeddings needs scikit-learn: .*report"):
        map_embeddings(made, tmp_path / "map.png")
    assert list(tmp_path.iterdir()) == []
