"""The table of an evaluation, as a console shows it."""

import io

from rich.console import Console

from attengait.cli.tables import evaluation_table
from attengait.evaluation import EvaluationResult


def test_the_table_has_a_row_for_each_view_the_means_and_the_notes_below():
    result = EvaluationResult(
        protocol="casia-b",
        distance="l2",
        leaves_out="identical views",
        rank1={"nm": {"000": 0.5, "018": None}, "bg": {"000": 0.25, "018": 0.75}},
        mean_average_precision={"nm": {"000": 1.0, "018": 1.0}, "bg": {"000": 0.0, "018": 0.0}},
        num_subjects=4,
        num_gallery_subjects=4,
        num_probes=8,
        num_gallery=16,
        num_tied=0,
        num_unmatched=0,
        num_missing=1,
        num_repeated=0,
        num_unused=0,
        missing=("no nm probe at view 018",),
    )
    output = io.StringIO()
    Console(width=100, file=output).print(evaluation_table(result))
    lines = output.getvalue().splitlines()
    assert lines[0] == "casia-b: rank-1 in %, excluding identical views, distance l2"
    rows = [line.replace("│", " ").split() for line in lines if line.startswith("│")]
    assert rows == [
        ["000", "50.0", "25.0", "100.0", "0.0"],
        ["018", "–", "75.0", "100.0", "0.0"],
        ["mean", "50.0", "50.0", "100.0", "0.0"],
    ]
    assert "nm mAP" in output.getvalue()
    assert lines[-4:] == [
        "mean over conditions 50.0, chance level 25.0",
        "4 subjects, 8 probes, 16 gallery items",
        "0 probes with a match and another person at the same distance",
        "no nm probe at view 018",
    ]
