"""What the plan of a run listed must be there and unchanged when a shard is committed."""

import os
from importlib import import_module
from pathlib import Path

import pytest

from attengait.datasets import SourceSequence
from attengait.datasets.inputs import InputError, check_unchanged, require_readable

casia = import_module("casia")
walks = import_module("walks")


@pytest.fixture
def sequence(tmp_path: Path) -> SourceSequence:
    walks.write_walk(tmp_path, "001", "nm-01", 6, seed=0)
    found: SourceSequence = casia.find(tmp_path / "rgb", tmp_path / "silh").sequences[0]
    return found


def test_nothing_changed(sequence: SourceSequence) -> None:
    check_unchanged(sequence)


@pytest.mark.parametrize("side", ["rgb", "silh"])
@pytest.mark.parametrize("number", [1, 6])
def test_each_file_s_size_time_and_presence_count(
    sequence: SourceSequence, tmp_path: Path, side: str, number: int
) -> None:
    path = walks.picture(tmp_path, side, "001/nm-01/090", number)
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    with pytest.raises(InputError, match=f"^{path} changed during the run$"):
        check_unchanged(sequence)
    path.write_bytes(path.read_bytes() + b"x")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(InputError, match=f"^{path} changed during the run$"):
        check_unchanged(sequence)
    path.unlink()
    with pytest.raises(InputError, match=f"^{path} can no longer be read: No such file"):
        check_unchanged(sequence)


def test_a_file_is_read_to_its_end(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(3 << 20))
    require_readable(str(tmp_path / "a"))
    for path in (tmp_path / "b", tmp_path):
        with pytest.raises(InputError, match=f"^{path} can no longer be read: "):
            require_readable(str(path))
