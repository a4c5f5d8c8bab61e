"""Our flow for the CPU agrees with OpenCV's, for every parameter, at any size, in every instruction set.

The tolerances are those of shared/specs/farneback.md: single pixels that nothing constrains may differ by more, so the
flow is held to its mean (1e-4 px) and its 99.9th percentile (1e-2 px), and pictures to 99.5 % equal values and 99.9 %
within 2 levels.
"""

import platform
import shutil
import subprocess
import threading
from collections.abc import Iterator
from importlib import import_module
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from attengait.errors import AttenGaitError, ParameterError
from attengait.kernels.farneback import cpu as farneback_cpu
from attengait.kernels.farneback.cpu import MOST_HELD, CpuFlow, missing
from attengait.kernels.flow.backends import FarnebackParameters, make_backend
from attengait.kernels.pictures.encode import ENCODINGS, encode
from attengait.kernels.runtime.compile import NATIVE, find_compiler
from attengait.synth.motion import MOTIONS, motion_pair

sanitised = import_module("sanitised")
PUBLISHED = FarnebackParameters()
PARAMETERS = {
    "published": PUBLISHED,
    "gaussian": FarnebackParameters(window="gaussian"),
    "even window": FarnebackParameters(winsize=10, levels=2, iterations=5),
    "uneven levels": FarnebackParameters(pyr_scale=0.7, levels=5, iterations=2),
    "fine levels": FarnebackParameters(pyr_scale=0.97, levels=4, iterations=1),
    "poly_n 7": FarnebackParameters(poly_n=7, poly_sigma=1.5, winsize=21),
    "poly_n 9": FarnebackParameters(poly_n=9, poly_sigma=2.1, winsize=40, window="gaussian"),
    "one level": FarnebackParameters(levels=0, iterations=1, winsize=5, poly_n=3, poly_sigma=0.9),
    "many iterations": FarnebackParameters(pyr_scale=0.3, winsize=31, iterations=9),
    "window wider than pictures": FarnebackParameters(winsize=301, iterations=1),
}
SIZES = [(240, 320), (64, 64), (97, 131), (10, 57), (61, 10), (180, 33)]

needs_compiler = pytest.mark.skipif(missing() is not None, reason=f"no flow on the CPU: {missing()}")


def opencv_flows(grays: list[np.ndarray], pairs: list[tuple[int, int]], parameters: FarnebackParameters) -> np.ndarray:
    return np.stack(list(make_backend("opencv", parameters).flows(grays, pairs)))


def assert_agrees(ours: np.ndarray, theirs: np.ndarray) -> None:
    errors = np.abs(ours - theirs)
    assert errors.mean() <= 1e-4
    assert np.percentile(errors, 99.9) <= 1e-2


def moving_frames(num: int, height: int = 64, width: int = 80) -> list[np.ndarray]:
    first, _ = motion_pair("translation", height + 40, width + 40, seed=3)
    return [np.ascontiguousarray(first[2 * i : 2 * i + height, i : i + width]) for i in range(num)]


@needs_compiler
@pytest.mark.parametrize("name", PARAMETERS)
@pytest.mark.parametrize("size", SIZES, ids="{0[0]}x{0[1]}".format)
def test_flow_agrees_with_opencv_on_every_motion(name: str, size: tuple[int, int]) -> None:
    for kind in MOTIONS:
        pair = list(motion_pair(kind, *size))
        (ours,) = CpuFlow(PARAMETERS[name]).flows(pair, [(0, 1)])
        assert_agrees(ours, opencv_flows(pair, [(0, 1)], PARAMETERS[name])[0])


@needs_compiler
def test_flow_agrees_with_opencv_on_a_large_picture_and_large_motion() -> None:
    pair = [
        cv2.resize(picture, (1280, 720), interpolation=cv2.INTER_CUBIC) for picture in motion_pair("rotation", 240, 320)
    ]
    (ours,) = CpuFlow(PUBLISHED).flows(pair, [(0, 1)])
    theirs = opencv_flows(pair, [(0, 1)], PUBLISHED)[0]
    assert np.abs(theirs).max() > 15
    assert_agrees(ours, theirs)


@needs_compiler
def test_two_equal_even_pictures_do_not_move() -> None:
    even = np.full((50, 70), 200, np.uint8)
    (flow,) = CpuFlow(PUBLISHED).flows([even, even], [(0, 1)])
    np.testing.assert_allclose(flow, 0, atol=1e-6)


@needs_compiler
def test_flow_and_pictures_agree_on_real_video(shared: Path) -> None:
    with np.load(shared / "reference" / "preprocess.npz") as reference:
        for name in sorted(key.removesuffix("_bgr") for key in reference if key.endswith("_bgr")):
            files = [cv2.imencode(".png", frame)[1] for frame in reference[f"{name}_bgr"]]
            grays = [cv2.imdecode(file, cv2.IMREAD_GRAYSCALE) for file in files]
            pairs = list(pairwise(range(len(grays))))
            ours, theirs = list(CpuFlow(PUBLISHED).flows(grays, pairs)), opencv_flows(grays, pairs, PUBLISHED)
            assert_agrees(np.stack(ours), theirs)
            silhouettes = reference[f"{name}_silhouette"][1:]
            for encoding in ENCODINGS:
                pictures, wanted = (
                    np.stack([encode(f, s, encoding, 64) for f, s in zip(flows, silhouettes, strict=True)]).astype(int)
                    for flows in (ours, theirs)
                )
                differences = np.abs(pictures - wanted)
                assert np.mean(differences == 0) >= 0.995
                assert np.mean(differences <= 2) >= 0.999


def flag_sets() -> list[tuple[str, ...]]:
    """Flags for vectors of 4 lanes, and of 8 where this processor has them; its own are those of all other tests."""
    plain = tuple(flag for flag in farneback_cpu.FLAGS if flag != NATIVE)
    if platform.machine() != "x86_64":
        return [plain]
    has_avx2 = Path("/proc/cpuinfo").exists() and " avx2 " in Path("/proc/cpuinfo").read_text()
    return [plain, *([(*plain, "-mavx2", "-mfma")] if has_avx2 else [])]


@pytest.fixture
def other_flags(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(farneback_cpu, "FLAGS", request.param)
    farneback_cpu._library.cache_clear()
    yield
    farneback_cpu._library.cache_clear()


@needs_compiler
@pytest.mark.usefixtures("other_flags")
@pytest.mark.parametrize("other_flags", flag_sets(), indirect=True, ids=" ".join)
@pytest.mark.parametrize("name", ["published", "poly_n 9"])
def test_flow_agrees_with_opencv_in_other_instruction_sets(name: str) -> None:
    for kind in MOTIONS:
        pair = list(motion_pair(kind, 97, 131))
        (ours,) = CpuFlow(PARAMETERS[name]).flows(pair, [(0, 1)])
        assert_agrees(ours, opencv_flows(pair, [(0, 1)], PARAMETERS[name])[0])


@needs_compiler
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_pictures_are_those_of_opencvs_flow_and_numpys_colours(encoding: str) -> None:
    grays, pairs = moving_frames(6, 120, 160), [(i, i + 1) for i in range(5)]
    silhouettes = [np.zeros((120, 160), np.uint8) for _ in pairs]
    for i, silhouette in enumerate(silhouettes):
        silhouette[20:100, 30 * i : 30 * i + 40] = 255
    ours, theirs = (
        make_backend(name, PUBLISHED).pictures(grays, pairs, silhouettes, encoding, 64) for name in ("cpu", "opencv")
    )
    differences = np.abs(ours.astype(int) - theirs)
    assert ours.shape == (5, 64, 64, ENCODINGS[encoding].channels)
    assert np.mean(differences == 0) >= 0.995
    assert np.mean(differences <= 2) >= 0.999
    assert theirs.min() < theirs.max()


@needs_compiler
def test_pairs_may_skip_frames_go_back_and_share_frames_that_were_let_go() -> None:
    num = MOST_HELD + 4
    grays = moving_frames(num)
    pairs = [(i, num - 1 - i) for i in range(num)] + [(0, num - 1), (3, 3)]
    ours = np.stack(list(CpuFlow(PUBLISHED).flows(grays, pairs)))
    alone = np.stack([next(CpuFlow(PUBLISHED).flows(grays, [pair])) for pair in pairs])
    np.testing.assert_array_equal(ours, alone)
    assert_agrees(ours, opencv_flows(grays, pairs, PUBLISHED))


@needs_compiler
def test_a_frame_is_expanded_once_and_few_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    expanded, rooms = [], []
    solver = farneback_cpu._Solver
    expand, room = solver.expand, solver.room
    monkeypatch.setattr(solver, "expand", lambda self, gray, to: expanded.append(gray[0, 0]) or expand(self, gray, to))
    monkeypatch.setattr(solver, "room", lambda self: rooms.append(1) or room(self))
    grays = [np.full((20, 30), i, np.uint8) for i in range(9)]
    list(CpuFlow(PUBLISHED).flows(grays, list(pairwise(range(9)))))
    assert expanded == list(range(9))
    assert len(rooms) == 2


@needs_compiler
def test_flows_stay_as_they_were_when_others_follow() -> None:
    grays = moving_frames(4)
    flows, copies = [], []
    for flow in CpuFlow(PUBLISHED).flows(grays, list(pairwise(range(4)))):
        flows.append(flow)
        copies.append(flow.copy())
    np.testing.assert_array_equal(flows, copies)


@needs_compiler
def test_frames_may_be_views_with_other_strides() -> None:
    wide = np.stack(moving_frames(2, 128, 200))
    for views in (wide[:, 5:100, 7:150], wide[:, ::2, ::3], wide[:, ::-1, ::-1], wide.transpose(0, 2, 1)):
        (ours,) = CpuFlow(PUBLISHED).flows(list(views), [(0, 1)])
        (whole,) = CpuFlow(PUBLISHED).flows([np.ascontiguousarray(view) for view in views], [(0, 1)])
        np.testing.assert_array_equal(ours, whole)


@needs_compiler
def test_threads_may_compute_at_once() -> None:
    grays, results = moving_frames(3), {}
    flow = CpuFlow(PUBLISHED)

    def work(i: int) -> None:
        results[i] = np.stack(list(flow.flows(grays, [(0, 1), (1, 2)])))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal(results[1], results[0])
    np.testing.assert_array_equal(results[2], results[0])


@needs_compiler
@pytest.mark.parametrize(
    ("grays", "sentence"),
    [
        ([np.zeros((40, 9), np.uint8)] * 2, "frames is 9 x 40 pixels, but must be at least 10 x 10"),
        (
            [np.zeros((40, 50), np.uint8), np.zeros((40, 51), np.uint8)],
            r"frames is uint8 \[40, 51\], but must be uint8 \[40, 50\] like the first",
        ),
        ([np.zeros((40, 50), np.float32)] * 2, "frames is float32"),
        ([np.zeros((40, 50, 3), np.uint8)] * 2, r"frames is uint8 \[40, 50, 3\], but must be uint8 \[H, W\]"),
    ],
)
def test_frames_that_cannot_be_taken_are_refused(grays: list[np.ndarray], sentence: str) -> None:
    with pytest.raises(ParameterError, match=sentence):
        list(CpuFlow(PUBLISHED).flows(grays, [(0, 1)]))


@pytest.mark.parametrize("name", ["winsize", "iterations", "poly_n"])
def test_parameters_beyond_reason_are_refused(name: str) -> None:
    with pytest.raises(ParameterError, match=f"{name} is 10000, but must be at most 9999 for flow cpu"):
        CpuFlow(FarnebackParameters(**{name: 10_000}))


@needs_compiler
def test_no_pairs_give_no_flow() -> None:
    assert list(CpuFlow(PUBLISHED).flows([], [])) == []


def test_without_a_compiler_it_is_missing_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert "needs a C++ compiler" in (missing() or "")
    with pytest.raises(AttenGaitError, match=r"flow backend cpu cannot be used: it needs a C\+\+ compiler"):
        make_backend("cpu", PUBLISHED)


@needs_compiler
def test_the_source_compiles_without_a_warning(tmp_path: Path) -> None:
    for flags in (farneback_cpu.FLAGS, *flag_sets()):
        command = [str(find_compiler()), "-std=c++17", "-Wall", "-Wextra", "-Wshadow", "-shared", "-fPIC", *flags]
        command += [str(farneback_cpu.SOURCE), "-o", str(tmp_path / "library.so")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0
        assert done.stderr == ""


@needs_compiler
def test_flow_colours_and_png_are_clean_under_sanitizers() -> None:
    """Run in a process of its own, with AddressSanitizer and UndefinedBehaviorSanitizer compiled in."""
    done = sanitised.run_sanitised("run_flow_sanitised.py")
    # The last step writes past an array on purpose, so that a sanitizer that sees nothing is noticed.
    assert done.stdout.split() == ["flow", "colour", "png", "overflow"], done.stderr[-3000:]
    assert "heap-buffer-overflow" in done.stderr
