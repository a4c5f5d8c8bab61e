"""Names are drawn as they are, whatever matplotlib takes them for."""

from pathlib import Path

import numpy as np
import pytest

from attengait.errors import ParameterError
from attengait.evaluation import Embeddings
from attengait.report import embedding_map
from attengait.report.embedding_map import map_embeddings
from attengait.report.figure import as_it_is, new_figure, save_figure

NAMES = ("_a", "", r"$\bad{x$", r"\$", "$a$", "a$", "__$x_1$", "a\nb", "075", "a%_b^c{")


@pytest.mark.filterwarnings("error")
def test_a_legend_has_every_name_and_no_name_is_a_formula(tmp_path: Path) -> None:
    figure = new_figure(3, 3)
    axes = figure.subplots()
    for name in NAMES:
        axes.plot([0, 1], label=as_it_is(name))
    texts = axes.legend().get_texts()
    save_figure(figure, tmp_path / "a.png")
    # What matplotlib draws where a text is no formula.
    shown = [text._preprocess_math(text.get_text()) for text in texts]
    assert [(text.lstrip("\u200b"), is_math) for text, is_math in shown] == [
        (name.replace("\n", r"\n"), False) for name in NAMES
    ]


def test_subjects_of_any_name_are_in_the_legend_of_a_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn")
    subjects = np.repeat(["_a", r"$\bad{x$", "075"], 4)
    made = Embeddings(
        features=np.random.default_rng(0).normal(size=(12, 2, 4)).astype(np.float32),
        subjects=subjects,
        views=np.tile(["000", "090"], 6),
        sequences=np.array([f"nm-{i:02d}" for i in range(12)]),
    )
    figures = []

    def hear(figure, path):
        figures.append(figure)
        save_figure(figure, path)

    monkeypatch.setattr(embedding_map, "save_figure", hear)
    drawn = map_embeddings(made, tmp_path / "m.png", seed=2**32 - 1)
    texts = [text.get_text() for text in figures[0].axes[0].get_legend().get_texts()]
    assert texts == [as_it_is(name) for name in drawn.coloured]
    assert len(texts) == 3
    for seed in (-1, 2**32):
        with pytest.raises(ParameterError, match=rf"seed is {seed}, but must be at least 0 and below 2\^32"):
            map_embeddings(made, tmp_path / "m.png", seed=seed)
