"""README and docs: their Python runs as it stands, their commands and links exist, and no page is too long.

Python runs in a folder with what the pages name: the stores casia-b.zarr and uv.zarr, and the run runs/casia-b.
"""

import itertools
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
import zarr
from small_stores import make_store

from attengait.cli.main import app
from attengait.pipelines.train import train_run
from attengait.preprocessing.flow_choice import farneback_parameters
from attengait.synth.dataset import SynthConfig, write_walkers
from attengait.training.config import TrainingConfig, make_config, parse_assignments, settings_of

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
MOST_LINES = {README: 120}
"""Pages that must be shorter than the others."""
MOST_LINES_OF_A_PAGE = 220

OPTIONS_OF_OTHERS = {"--extra-index-url"}
"""Options of pip, which the pages name as well."""

SUBJECTS = ("001", "002", "003", "004", "075")
WALKS = ("nm-01", "nm-05")
VIEWS = ("000", "090")

each_page = pytest.mark.parametrize("page", PAGES, ids=NAMES)


def blocks(page: Path, language: str) -> list[tuple[int, str]]:
    """The fenced blocks of a language: the number of the first line of each, from 1, and its text."""
    text = page.read_text()
    found = re.finditer(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [(text.count("\n", 0, match.start(1)) + 1, match[1]) for match in found]


def shell_commands(page: Path) -> Iterator[list[str]]:
    """The words after `attengait` of each command in the shell blocks of a page, those of torchrun included."""
    for _, block in blocks(page, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] in (["attengait"], ["torchrun"]):
                yield words[words.index("attengait") + 1 :]


def code_in_text(page: Path) -> list[str]:
    """What stands between back quotes in the text of a page, outside its blocks."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return [code.replace("\n", " ") for code in re.findall(r"`([^`]+)`", text)]


def find_command(words: list[str]) -> tuple[Any, list[str]]:
    """The command or group of commands that the words name, and the words that follow its name."""
    command: Any = typer.main.get_command(app)
    rest = list(words)
    while hasattr(command, "commands") and rest and not rest[0].startswith("-"):
        assert rest[0] in command.commands, f"there is no command attengait {' '.join(words)}"
        command = command.commands[rest.pop(0)]
    return command, rest


def options_of(command: Any) -> set[str]:
    """All options of a command, or of all commands of a group."""
    own = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    return own.union({"--help"}, *(options_of(other) for other in getattr(command, "commands", {}).values()))


def walks_of_five_people(path: Path, *, encoding: str, channels: int) -> None:
    """A finished store: each of `SUBJECTS` has two walks at two views, of 44 random images each."""
    store = make_store(
        path,
        lengths=(44,) * len(SUBJECTS) * len(WALKS) * len(VIEWS),
        frame_shape=(64, 64, channels),
        attributes={"modality": "flow", "encoding": encoding},
    )
    names = [(subject, walk, view) for subject in SUBJECTS for walk in WALKS for view in VIEWS]
    columns = zarr.open_group(store.path / "sequences", mode="r+")
    for column, values in zip(("subject", "walk", "view"), zip(*names, strict=True), strict=True):
        columns[column][:] = np.array(values, np.dtypes.StringDType())


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the stores, the run and the walkers that the pages name, as small as they can be."""
    folder = tmp_path_factory.mktemp("pages")
    walks_of_five_people(folder / "casia-b.zarr", encoding="colour", channels=3)
    walks_of_five_people(folder / "uv.zarr", encoding="uv", channels=2)
    config = make_config(
        {
            "size": "tiny",
            "subjects_per_batch": 2,
            "clips_per_subject": 2,
            "clip_frames": 16,
            "train_subjects": ["001-004"],
            "device": "cpu",
            "stop_after_steps": 1,
        }
    )
    train_run(folder / "casia-b.zarr", folder / "runs" / "casia-b", config)
    walkers = SynthConfig(subjects=3, walks=("nm-01", "nm-05"), views=(0, 90), frames=22, workers=1)
    write_walkers(folder / "walkers", walkers)
    return folder


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=lambda page: page.name)
def test_the_python_of_a_page_runs_as_it_stands(
    page: Path, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(prepared, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    names: dict[str, object] = {}
    for line, block in blocks(page, "python"):
        # Empty lines before it, so that an error gives the line of the page.
        exec(compile("\n" * (line - 1) + block, str(page), "exec"), names)


@each_page
def test_every_command_of_a_page_is_accepted_as_it_stands(page: Path) -> None:
    for words in shell_commands(page):
        command, rest = find_command(words)
        if "--help" not in rest:
            command.make_context("attengait", list(rest))  # raises for whatever is not accepted
        given = list(itertools.pairwise(rest))
        settings = parse_assignments([value for option, value in given if option == "--set"])
        make_config(settings_of(TrainingConfig()) | settings)
        farneback_parameters("opencv", [value for option, value in given if option == "--farneback"])


@each_page
def test_every_command_and_option_in_the_text_of_a_page_exists(page: Path) -> None:
    every_option = options_of(find_command([])[0]) | OPTIONS_OF_OTHERS
    for code in code_in_text(page):
        words = code.split()
        if words[0] == "attengait":
            command, words = find_command([word for word in words[1:] if word != "COMMAND"])
            known = options_of(command)
        else:
            known = every_option
        options = [word.partition("=")[0] for word in words if word.startswith("--")]
        assert set(options) <= known, code


def test_every_setting_that_the_page_about_training_names_exists() -> None:
    code = code_in_text(ROOT / "docs" / "train.md")
    assignments = [text for text in code if re.fullmatch(r"[a-z0-9_]+=\S+", text)]
    names = {text for text in code if re.fullmatch(r"[a-z0-9]+(_[a-z0-9]+)+", text)}
    assert assignments
    for assignment in assignments:
        make_config(settings_of(TrainingConfig()) | parse_assignments([assignment]))
    assert names
    assert names <= settings_of(TrainingConfig()).keys()


@each_page
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
        assert "://" in target or (page.parent / target).exists(), f"{page.name} links to {target}, which is not there"


def test_every_page_is_listed_in_the_index() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    for page in PAGES[1:]:
        assert page.name == "README.md" or f"]({page.name})" in index, page.name


@each_page
def test_no_page_is_longer_than_it_may_be(page: Path) -> None:
    assert len(page.read_text().splitlines()) <= MOST_LINES.get(page, MOST_LINES_OF_A_PAGE)
