"""ROC and DET curves: the points drawn are those of the JSON, and the marks stand where the figures say."""

from pathlib import Path
from statistics import NormalDist

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from attengait.cli.main import app
from attengait.errors import AttenGaitError, ParameterError
from attengait.evaluation import Embeddings, EvaluationOptions, EvaluationResult, evaluate_embeddings
from attengait.evaluation.embeddings import save_embeddings
from attengait.report.curves import curves_figure

NAMES = [(f"{s:02d}", walk, "000") for s in range(60) for walk in ("01", "02")]


def made(noise: float = 1.0) -> Embeddings:
    subjects, sequences, views = (np.array(column) for column in zip(*NAMES, strict=True))
    random = np.random.default_rng(0)
    features = random.normal(size=(60, 3, 4))[subjects.astype(int)] + noise * random.normal(size=(len(NAMES), 3, 4))
    return Embeddings(features=features.astype(np.float32), subjects=subjects, sequences=sequences, views=views)


def found(noise: float = 1.0) -> EvaluationResult:
    return evaluate_embeddings(made(noise), protocol="grew", options=EvaluationOptions(verification=True))


def test_the_curves_have_the_points_of_the_json_and_the_marks_stand_at_the_figures() -> None:
    result = found()
    written = result.to_dict()["verification"]
    roc, det = curves_figure(result).axes
    lines = {line.get_label(): line for line in (*roc.lines, *det.lines)}
    np.testing.assert_array_equal(lines["ROC"].get_xdata(), written["roc"]["far"])
    np.testing.assert_array_equal(lines["ROC"].get_ydata(), written["roc"]["tar"])
    assert roc.get_xscale() == "log"
    curve = lines["DET"].get_xydata()
    shares = [[NormalDist().cdf(value) for value in point] for point in curve.tolist()]
    expected = [
        [far, frr]
        for far, frr in zip(written["det"]["far"], written["det"]["frr"], strict=True)
        if 0 < far < 1 and 0 < frr < 1
    ]
    assert len(expected) > 20
    np.testing.assert_allclose(shares, expected, atol=1e-12)
    marks = {label.split(" ")[0]: line for label, line in lines.items() if label.startswith("TAR")}
    assert marks["TAR"].get_xydata().tolist() == [[0.001, written["tar_at_far"]["0.001"]]]
    rate = written["equal_error_rate"]
    of_rate = [line.get_xydata().tolist() for line in (*roc.lines, *det.lines) if "equal" in line.get_label()]
    deviate = NormalDist().inv_cdf(rate)
    assert of_rate == [[[rate, 1 - rate]], [[deviate, deviate]]]


def test_curves_without_an_error_are_drawn_without_marks_at_zero() -> None:
    roc, det = curves_figure(found(noise=0)).axes
    assert not any("equal" in line.get_label() for line in (*roc.lines, *det.lines))


def test_the_command_draws_them_and_refuses_what_has_none(tmp_path: Path) -> None:
    save_embeddings(tmp_path / "e.npz", made())
    words = ["evaluate", "--embeddings", str(tmp_path / "e.npz"), "--protocol", "grew"]
    picture = tmp_path / "curves.png"
    done = CliRunner().invoke(app, [*words, "--verification", "--curves", str(picture)])
    assert done.exit_code == 0, done.output
    assert (cv2.imread(str(picture))[:, :, ::-1] == (27, 108, 168)).all(axis=2).sum() > 300
    alone = CliRunner().invoke(app, [*words, "--curves", str(picture)])
    assert isinstance(alone.exception, ParameterError)
    assert "but must be left out without --verification" in str(alone.exception)
    wrong = CliRunner().invoke(app, [*words, "--verification", "--curves", "curves.pdf"])
    assert "curves is curves.pdf, but must be a file that ends in .png" in str(wrong.exception)


def test_without_pairs_there_is_no_picture() -> None:
    with pytest.raises(AttenGaitError, match="no pairs of one person, or none of two"):
        curves_figure(evaluate_embeddings(made(), protocol="grew"))
