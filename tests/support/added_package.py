"""A package that is installed beside AttenGait, with entry points."""

from pathlib import Path

import pytest


def install(
    folder: Path, monkeypatch: pytest.MonkeyPatch, entry_points: str, *, name: str = "added", **modules: str
) -> None:
    """Install a package in `folder` for this test: its entry points, and the sources of its modules by their names."""
    about = folder / f"{name}-1.0.dist-info"
    about.mkdir(parents=True)
    for module, source in modules.items():
        (folder / f"{module}.py").write_text(source)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(entry_points)
    monkeypatch.syspath_prepend(folder)
