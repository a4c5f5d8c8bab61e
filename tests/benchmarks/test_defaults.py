"""Benchmarks measure what the published training reads, and the command line says the same."""

import pytest
import typer

from attengait.benchmarks.defaults import BATCH_SIZE, CLIP_FRAMES
from attengait.cli.benchmark import app
from attengait.training.config import make_config


def test_clips_and_batches_are_those_of_the_published_training() -> None:
    published = make_config({})
    assert published.clip_frames == CLIP_FRAMES
    assert published.subjects_per_batch * published.clips_per_subject == BATCH_SIZE


@pytest.mark.parametrize(("option", "default"), [("batch_size", BATCH_SIZE), ("clip_frames", CLIP_FRAMES)])
def test_the_command_line_has_the_same_defaults(option: str, default: int) -> None:
    # The commands state them, as asking for help must not load what the presets need.
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    found = {name: p.default for name, command in commands.items() for p in command.params if p.name == option}
    assert "loader" in found
    assert set(found.values()) == {default}
