"""Figures in the documentation are those of the reports, and a figure that is not is found."""

import json
import re
import shutil
from pathlib import Path

import pytest

from attengait.benchmarks.figure_texts import FIGURES
from attengait.benchmarks.figures import RESULTS, fill, main, read_reports
from attengait.errors import AttenGaitError, ParameterError

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]


def test_the_documentation_has_the_figures_of_the_reports(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check", *map(str, PAGES)]) == 0, capsys.readouterr().err
    assert "<!-- figures: loader -->" in (ROOT / "docs/speed.md").read_text()


def test_the_speed_page_has_no_rate_beside_those_of_the_reports() -> None:
    text = re.sub(r"<!-- figures: .*?<!-- end figures -->", "", (ROOT / "docs/speed.md").read_text(), flags=re.DOTALL)
    assert re.findall(r"\d[\d,.]*\s+(?:clips/s|frames/s|pairs/s|ms|seconds|[MG]i?B|times|%)\b", text) == []


def test_a_changed_figure_is_found_and_written_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "speed.md"
    original = (ROOT / "docs/speed.md").read_text()
    assert original.count("28,050 (27,690 to 32,740)") == 1
    page.write_text(original.replace("28,050 (27,690 to 32,740)", "38,050 (27,690 to 32,740)"))
    assert main(["--check", str(page)]) == 1
    error = capsys.readouterr().err
    assert re.match(r".*speed\.md: line \d+ is '.*38,050.*but the reports give '.*28,050.*make docs-figures", error)
    assert main([str(page)]) == 0
    assert page.read_text() == original


def test_a_new_report_makes_the_page_differ(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in RESULTS.glob("*.json"):
        shutil.copy(path, tmp_path)
    loader = json.loads((tmp_path / "loader.json").read_text())
    next(row for row in loader[0]["results"] if row["name"] == "stream")["clips_per_s"] = 12345
    (tmp_path / "loader.json").write_text(json.dumps(loader))
    assert main(["--check", "--results", str(tmp_path), str(ROOT / "docs/speed.md")]) == 1
    assert "12,345" in capsys.readouterr().err


@pytest.mark.parametrize("name", FIGURES)
def test_every_name_gives_text_that_stays_when_it_is_written_again(name: str) -> None:
    reports = read_reports(RESULTS)
    once = fill(f"Before <!-- figures: {name} --><!-- end figures --> after.\n", reports)
    assert re.search(r"\d", once.replace(name, ""))
    assert fill(once, reports) == once
    assert once.startswith("Before ")
    assert once.endswith(" after.\n")


def test_what_is_written_wrong_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reports = read_reports(RESULTS)
    with pytest.raises(ParameterError, match=r"lodaer.*did you mean 'loader'"):
        fill("<!-- figures: lodaer --><!-- end figures -->", reports)
    for text in ("<!-- figures: loader -->", "<!-- end figures -->", "<!-- figures:loader --><!-- end figures -->"):
        with pytest.raises(AttenGaitError, match="stands alone"):
            fill(text, reports)
    with pytest.raises(AttenGaitError, match="'soak'"):
        fill("<!-- figures: soak --><!-- end figures -->", {})
    assert main(["--results", str(tmp_path / "nowhere"), "x.md"]) == 1
    assert "holds no reports" in capsys.readouterr().err
    (tmp_path / "x.md").write_text("<!-- figures: loader -->")
    assert main([str(tmp_path / "x.md")]) == 1
    assert re.match(r".*x\.md: the marker '<!-- figures: loader -->' stands alone", capsys.readouterr().err)
