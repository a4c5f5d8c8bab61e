"""The layout on disk, what it depends on, and what is refused."""

import hashlib
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from attengait.errors import AttenGaitError, ParameterError
from attengait.synth import SynthConfig, write_walkers
from attengait.synth.sequence import Identity, render_sequence

Heard = import_module("heard").Heard


def digests(folder: Path) -> dict[str, str]:
    """Relative path -> hash of every file."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def config(**changes: Any) -> SynthConfig:
    usual: dict[str, Any] = {"subjects": 2, "walks": ("nm-01", "bg-02"), "views": (0, 90), "frames": 3, "seed": 5}
    return SynthConfig(**(usual | changes))


def test_files_are_named_and_sized_as_in_casia_b(tmp_path: Path) -> None:
    summary = write_walkers(tmp_path, config())
    expected = {
        f"{kind}/{subject}/{walk}/{view}/{subject}-{walk}-{view}-{frame}.png"
        for kind in ("rgb", "silh")
        for subject in ("001", "002")
        for walk in ("nm-01", "bg-02")
        for view in ("000", "090")
        for frame in ("001", "002", "003")
    }
    assert set(digests(tmp_path)) == {*expected, "synth.json"}
    assert (summary.num_subjects, summary.num_sequences, summary.num_frames) == (2, 8, 24)
    assert (summary.frames, summary.silhouettes) == (tmp_path / "rgb", tmp_path / "silh")
    name = "002/bg-02/090/002-bg-02-090-002.png"
    picture = cv2.imread(str(tmp_path / "rgb" / name), cv2.IMREAD_UNCHANGED)
    silhouette = cv2.imread(str(tmp_path / "silh" / name), cv2.IMREAD_UNCHANGED)
    drawn = list(render_sequence(5, 2, "bg-02", 90, 3))[1]
    np.testing.assert_array_equal(picture, drawn[0])
    np.testing.assert_array_equal(silhouette, drawn[1])
    assert picture.shape == (240, 320, 3)
    assert silhouette.shape == (240, 320)
    assert silhouette.sum() > 10_000


def test_the_files_do_not_depend_on_the_workers(tmp_path: Path) -> None:
    for workers in (1, 2):
        heard = Heard()
        write_walkers(tmp_path / str(workers), config(workers=workers), progress=heard)
        assert heard.counts == [(done, 24) for done in range(3, 25, 3)]
    assert digests(tmp_path / "1") == digests(tmp_path / "2")


def test_a_subject_does_not_depend_on_who_else_is_made(tmp_path: Path) -> None:
    write_walkers(tmp_path / "some", config(views=(90,)))
    write_walkers(tmp_path / "one", config(subjects=(2,), walks=("bg-02",), views=(36, 90)))
    some, one = digests(tmp_path / "some"), digests(tmp_path / "one")
    shared = set(some) & set(one)
    assert len(shared) == 7
    assert all(some[name] == one[name] for name in shared)


def test_seed_subject_walk_and_view_all_change_the_pictures() -> None:
    def first(*key: int | str) -> np.ndarray:
        seed, subject, walk, view = key
        return next(render_sequence(int(seed), int(subject), str(walk), int(view), 2))[1]

    usual = first(5, 1, "nm-01", 90)
    for other in ((6, 1, "nm-01", 90), (5, 2, "nm-01", 90), (5, 1, "nm-02", 90), (5, 1, "nm-01", 91)):
        assert (usual != first(*other)).any()


def test_known_by_the_rhythm_a_subject_keeps_it_and_nothing_else() -> None:
    def rocks(subject: int, walk: str, view: int) -> float:
        """How often a second the head goes forward and back, compared with the hips, by the silhouette."""
        ways = []
        for _, silhouette in render_sequence(3, subject, walk, view, 100, "rhythm"):
            x, y, width, height = cv2.boundingRect(silhouette)
            body = silhouette[y : y + height, x : x + width] > 0
            head, hips = (
                np.nonzero(body[int(a * height) : int(b * height)])[1].mean() for a, b in ((0, 0.12), (0.45, 0.5))
            )
            ways.append((head - hips) / height)
        spectrum = np.abs(np.fft.rfft((ways - np.mean(ways)) * np.hanning(100), 2000))
        return float(np.fft.rfftfreq(2000, 1 / 25)[80 + spectrum[80:].argmax()])

    found = {s: [rocks(s, walk, view) for walk, view in (("nm-01", 90), ("cl-01", 72))] for s in range(1, 7)}
    for first, second in found.values():
        assert first == pytest.approx(second, rel=0.1)
    rhythms = [first for first, _ in found.values()]
    assert max(rhythms) > 1.5 * min(rhythms)

    def colour(subject: int, walk: str, identity: Identity) -> np.ndarray:
        frame, silhouette = next(render_sequence(3, subject, walk, 90, 2, identity))
        return frame[silhouette > 0].mean(0)

    walks = [f"nm-{i:02d}" for i in range(1, 7)]
    of_one = np.std([colour(1, walk, "rhythm") for walk in walks], axis=0).mean()
    of_all = np.std([colour(s, "nm-01", "rhythm") for s in range(1, 7)], axis=0).mean()
    assert of_all < 0.3 * of_one
    assert np.std([colour(s, "nm-01", "all") for s in range(1, 7)], axis=0).mean() > 0.3 * of_one


def test_one_folder_takes_several_sets_and_the_same_call_ends_in_the_same_files(tmp_path: Path) -> None:
    write_walkers(tmp_path, config(subjects=(7,)))
    write_walkers(tmp_path, config(subjects=(1,)))
    write_walkers(tmp_path / "again", config(subjects=(1, 7)))
    again = digests(tmp_path / "again")
    assert {name: value for name, value in digests(tmp_path).items() if not name.startswith("again")} == again


@pytest.mark.parametrize("changes", [{"seed": 6}, {"identity": "rhythm"}, {"frames": 4}, {"video": True}])
def test_a_folder_of_other_walkers_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    few = {"walks": ("nm-01",), "views": (90,), "frames": 2}
    write_walkers(tmp_path, config(**few))
    before = digests(tmp_path)
    with pytest.raises(ParameterError, match=r'^out is .* be another folder for \{"seed": .*: this one holds \{'):
        write_walkers(tmp_path, config(**few | {"subjects": 1} | changes))
    assert digests(tmp_path) == before
    (tmp_path / "synth.json").unlink()
    with pytest.raises(ParameterError, match=r"^out is .* be a new folder: it holds rgb and silh, but no synth"):
        write_walkers(tmp_path, config(**few))


def test_making_walkers_loads_no_torch(tmp_path: Path) -> None:
    program = f"""
import sys
from pathlib import Path
from typing import Any
from attengait.synth import SynthConfig, write_walkers
write_walkers(Path({str(tmp_path)!r}), SynthConfig(subjects=1, walks=("nm-01",), views=(90,), frames=1))
sys.exit("torch" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"subjects": 0}, "subjects is 0"),
        ({"identity": "face"}, "identity is 'face', but must be one of all, rhythm"),
        ({"subjects": 1000}, "subjects is 1000"),
        ({"subjects": (1, 0)}, r"subjects is \(1, 0\)"),
        ({"subjects": (3, 3)}, r"subjects is \[3, 3\], but must be at least one, and each only once"),
        ({"walks": ("xx-01",)}, "walk is 'xx-01', but must be nm, bg or cl"),
        ({"walks": ("nm-1",)}, "walk is 'nm-1'"),
        ({"walks": ("nm-01\n",)}, r"walk is 'nm-01\\n'"),
        ({"walks": ("nm-٠١",)}, "walk is 'nm-٠١'"),
        ({"walks": ()}, r"walks is \[\]"),
        ({"walks": ("nm-01", "nm-01")}, r"walks is \['nm-01', 'nm-01'\]"),
        ({"views": (360,)}, "view is 360"),
        ({"views": (-1,)}, "view is -1"),
        ({"views": ()}, r"views is \[\]"),
        ({"frames": 0}, "frames is 0"),
        ({"frames": 500}, "frames is 500"),
        ({"seed": -1}, "seed is -1"),
        ({"workers": 0}, "workers is 0"),
    ],
)
def test_impossible_requests_are_refused_by_name_and_value(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ParameterError, match=says):
        config(**changes)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_place_that_cannot_be_written_is_one_clear_error(tmp_path: Path, workers: int) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(AttenGaitError, match=r"cannot write to .*file"):
        write_walkers(tmp_path / "file", config(workers=workers))


def test_progress_may_stop_the_work(tmp_path: Path) -> None:
    def stop(done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_walkers(tmp_path, config(workers=2), progress=Heard(stop))
