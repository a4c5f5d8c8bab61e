"""Hardware flow: everything about it that holds without the hardware, and on a GPU what only that can show."""

from functools import lru_cache

import cv2
import numpy as np
import pytest

from attengait.errors import AttenGaitError
from attengait.kernels.flow import nvof as flow_nvof
from attengait.kernels.flow.backends import FarnebackParameters
from attengait.kernels.flow.nvof import MAX_RUN, HardwareFlow, backward_sequence, enlarge, flow_graph, runs
from attengait.kernels.runtime.gpu import Driver, Gpu

DALI_ERROR = """Critical error in pipeline:
Error in GPU operator `nvidia.dali.fn.optical_flow`,
which was used in the pipeline definition with the following traceback:

  File "flow_nvof.py", line 139, in flow_graph
    return fn.optical_flow(

encountered:

Assert on "is_grid_supported" failed: {}
C++ context: [/opt/dali/dali/operators/sequence/optical_flow/optical_flow_impl/optical_flow_impl.cc:57]
Current pipeline object is no longer valid."""
"""How DALI 2.4 words what went wrong."""

TURING = Gpu(name="T4", memory_bytes=16 << 30, compute_capability=(7, 5))


class ExactHardware:
    """Stands in for DALI: the true flow of pictures that move as a whole, as a backward field of a coarse grid."""

    def __init__(self, grid: int) -> None:
        self.grid = grid
        self.sequences: list[tuple[int, ...]] = []

    def run(self, pipeline: object, sequence: np.ndarray) -> np.ndarray:
        """What DALI gives: for each frame after the first, where its pixels were in the frame before."""
        assert sequence.dtype == np.uint8
        self.sequences.append(tuple(int(frame[0, 0, 0]) for frame in sequence))
        steps = np.diff(sequence[:, 0, 0, 0].astype(np.float32))
        height, width = (-(-side // self.grid) for side in sequence.shape[1:3])
        return np.stack([np.full((height, width, 2), (-step, step / 2), np.float32) for step in steps])


@pytest.fixture
def hardware(monkeypatch: pytest.MonkeyPatch) -> ExactHardware:
    fake = ExactHardware(grid=4)
    monkeypatch.setattr(flow_nvof, "_finest_grid", lambda gpu: fake.grid)
    monkeypatch.setattr(flow_nvof, "_pipeline", lru_cache(lambda grid, gpu: None))
    monkeypatch.setattr(flow_nvof, "_run", fake.run)
    return fake


def frames(positions: list[int], height: int = 30, width: int = 45) -> list[np.ndarray]:
    """Pictures whose grey level says how far the scene has moved."""
    return [np.full((height, width), position, np.uint8) for position in positions]


def test_neighbouring_pairs_are_one_run_and_others_are_their_own() -> None:
    pairs = [(0, 1), (1, 2), (2, 3), (5, 6), (6, 7), (3, 4), (9, 2), (2, 0)]
    assert runs(pairs) == [range(3), range(3, 5), range(5, 6), range(6, 8)]
    assert runs([]) == []


def test_long_runs_are_cut() -> None:
    pairs = [(i, i + 1) for i in range(2 * MAX_RUN + 3)]
    assert [len(run) for run in runs(pairs)] == [MAX_RUN, MAX_RUN, 3]


def test_a_run_is_given_backwards_with_each_frame_once() -> None:
    sequence = backward_sequence(frames([3, 5, 8, 9]), [(0, 1), (1, 3)])
    assert sequence.shape == (3, 30, 45, 1)
    assert sequence[:, 0, 0, 0].tolist() == [9, 5, 3]


def test_each_pair_gets_its_own_flow_from_its_first_to_its_second_frame(hardware: ExactHardware) -> None:
    positions = [10, 12, 15, 19, 30, 31]
    pairs = [(0, 1), (1, 2), (2, 3), (4, 5), (5, 0)]
    flows = list(HardwareFlow(FarnebackParameters()).flows(frames(positions), pairs))
    assert hardware.sequences == [(19, 15, 12, 10), (10, 31, 30)]
    assert len(flows) == len(pairs)
    for (first, second), flow in zip(pairs, flows, strict=True):
        moved = positions[second] - positions[first]
        assert flow.shape == (30, 45, 2)
        assert flow.dtype == np.float32
        # The stand-in gives (-step, step / 2) for what moved by step from one frame of its sequence to the next.
        np.testing.assert_array_equal(flow[7, 9], (moved, -moved / 2))
        assert np.ptp(flow, axis=(0, 1)).max() == 0


def test_long_sequences_are_cut_without_losing_a_pair(hardware: ExactHardware) -> None:
    positions = [i * (i + 1) // 8 for i in range(MAX_RUN + 6)]
    pairs = [(i, i + 1) for i in range(len(positions) - 1)]
    flows = list(HardwareFlow(FarnebackParameters()).flows(frames(positions), pairs))
    assert [flow[0, 0, 0] for flow in flows] == np.diff(positions).tolist()


@pytest.mark.parametrize("grid", [1, 2, 4])
@pytest.mark.parametrize(("height", "width"), [(24, 32), (30, 45), (5, 7)])
def test_enlarging_keeps_a_linear_field_with_each_vector_in_the_middle_of_its_square(
    grid: int, height: int, width: int
) -> None:
    rows, columns = -(-height // grid), -(-width // grid)
    y, x = np.mgrid[:rows, :columns].astype(np.float32) * grid + (grid - 1) / 2
    full = enlarge(np.stack([0.5 * x + 1, -0.25 * y], axis=-1), grid, height, width)
    assert full.shape == (height, width, 2)
    assert full.flags.c_contiguous
    y, x = np.mgrid[:height, :width].astype(np.float32)
    # Outside the outermost middles the nearest vectors are continued.
    x = x.clip((grid - 1) / 2, (columns - 1) * grid + (grid - 1) / 2)
    y = y.clip((grid - 1) / 2, (rows - 1) * grid + (grid - 1) / 2)
    np.testing.assert_allclose(full, np.stack([0.5 * x + 1, -0.25 * y], axis=-1), atol=1e-5)


def test_a_flow_belongs_to_whoever_receives_it(hardware: ExactHardware) -> None:
    hardware.grid = 1
    first, second = HardwareFlow(FarnebackParameters()).flows(frames([1, 2, 4]), [(0, 1), (1, 2)])
    assert not np.shares_memory(first, second)
    assert first.base is None
    first += 1


def test_the_graph_is_one_that_dali_knows() -> None:
    dali = pytest.importorskip("nvidia.dali")
    with dali.Pipeline(batch_size=1, num_threads=1, device_id=0):
        field = flow_graph(4)
    assert field.device == "gpu"
    with dali.Pipeline(batch_size=1, num_threads=1, device_id=0), pytest.raises((TypeError, RuntimeError, ValueError)):
        flow_graph("fine")


def test_the_parameters_recorded_are_those_it_uses(hardware: ExactHardware, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow_nvof, "find_driver", lambda: Driver(gpus=(TURING,)))
    assert flow_nvof.recorded_parameters() == {
        "device": "T4",
        "output_grid": 4,
        "preset": 0.0,
        "temporal_hints": False,
        "enlarged": "bilinear",
    }


@pytest.mark.parametrize(
    ("driver", "library", "sentence"),
    [
        (Driver(problem="no NVIDIA driver is installed"), None, "an NVIDIA GPU, but no NVIDIA driver is installed"),
        (Driver(gpus=(Gpu(name="P100", memory_bytes=1, compute_capability=(6, 0)),)), None, "which P100 lacks"),
        (Driver(gpus=(TURING,)), None, "NVIDIA_DRIVER_CAPABILITIES must include video"),
    ],
)
def test_what_is_missing_is_said(
    monkeypatch: pytest.MonkeyPatch, driver: Driver, library: object, sentence: str
) -> None:
    monkeypatch.setattr(flow_nvof, "find_driver", lambda: driver)
    monkeypatch.setattr(flow_nvof, "load_library", lambda name: library)
    text = flow_nvof.missing()
    assert text is not None
    assert sentence in text


def try_grids(monkeypatch: pytest.MonkeyPatch, offered: dict[int, str | None]) -> int | str:
    """The outcome where DALI refuses each grid of `offered` with its sentence, if it has one."""

    def run(grid: int, sequence: np.ndarray) -> np.ndarray:
        if sentence := offered[grid]:
            raise RuntimeError(DALI_ERROR.format(sentence))
        return np.zeros((1, 1, 1, 2), np.float32)

    monkeypatch.setattr(flow_nvof, "_pipeline", lambda grid, gpu: grid)
    monkeypatch.setattr(flow_nvof, "_run", run)
    return flow_nvof._try_grids.__wrapped__(0)


def test_the_finest_grid_that_the_device_offers_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    no = "Output grid size: 1 is not supported, supported are: {4}"
    assert try_grids(monkeypatch, {1: None, 2: None, 4: None}) == 1
    assert try_grids(monkeypatch, {1: no, 2: None, 4: None}) == 2
    assert try_grids(monkeypatch, {1: no, 2: no, 4: None}) == 4
    assert try_grids(monkeypatch, {1: no, 2: no, 4: no}) == ("the optical flow hardware does not answer: " + no)
    absent = "Verify that your device supports Optical Flow."
    assert try_grids(monkeypatch, {1: absent, 2: None, 4: None}) == (
        "the optical flow hardware does not answer: " + absent
    )


def test_the_gpu_that_is_asked_for_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[object, ...]] = []
    made = lru_cache(lambda grid, gpu: asked.append((grid, gpu)))
    hopper = Gpu(name="H100", memory_bytes=80 << 30, compute_capability=(9, 0))
    monkeypatch.setattr(flow_nvof, "_pipeline", made)
    monkeypatch.setattr(flow_nvof, "_run", lambda pipeline, sequence: np.zeros((1, 256, 256, 2), np.float32))
    monkeypatch.setattr(flow_nvof, "find_driver", lambda: Driver(gpus=(TURING, hopper)))
    flow_nvof._try_grids.cache_clear()
    HardwareFlow(FarnebackParameters(), gpu=1)
    assert flow_nvof.recorded_parameters(1)["device"] == "H100"
    assert asked == [(1, 1)]
    assert flow_nvof.missing(2) == "there is no GPU 2: this machine has 2, counted from 0"
    flow_nvof._try_grids.cache_clear()


@pytest.mark.gpu
def test_dali_is_told_which_gpu() -> None:
    number = len(flow_nvof.find_driver().gpus) - 1
    if sentence := flow_nvof.missing(number):
        pytest.skip(sentence)
    assert flow_nvof._pipeline(flow_nvof._finest_grid(number), number).device_id == number


def test_pictures_that_the_hardware_refuses_are_one_sentence(
    hardware: ExactHardware, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(pipeline: object, sequence: np.ndarray) -> np.ndarray:
        raise RuntimeError(DALI_ERROR.format("Width size 45 should be between 160 and 4096"))

    monkeypatch.setattr(flow_nvof, "_run", refuse)
    flows = HardwareFlow(FarnebackParameters()).flows(frames([1, 2]), [(0, 1)])
    with pytest.raises(AttenGaitError, match=r"no flow of 45 x 30 pictures: Width size 45 .* 4096$"):
        next(flows)


@pytest.mark.gpu
def test_on_a_gpu_flow_points_from_the_first_frame_to_the_second() -> None:
    if sentence := flow_nvof.missing():
        pytest.skip(sentence)
    noise = np.random.default_rng(0).integers(0, 256, (290, 370), dtype=np.uint8)
    wide = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 3), None, 0, 255, cv2.NORM_MINMAX)
    # The camera moves by (-3, 2), then (-4, -1): the scene moves the other way.
    grays = [np.ascontiguousarray(wide[y : y + 240, x : x + 320]) for y, x in ((20, 20), (22, 17), (21, 13))]
    flows = list(HardwareFlow(FarnebackParameters()).flows(grays, [(0, 1), (1, 2), (0, 2)]))
    for flow, moved in zip(flows, ((3, -2), (4, 1), (7, -1)), strict=True):
        assert flow.shape == (240, 320, 2)
        np.testing.assert_allclose(np.median(flow, axis=(0, 1)), moved, atol=0.25)


@pytest.mark.gpu
def test_on_a_gpu_a_flow_depends_on_its_own_two_frames_only() -> None:
    if sentence := flow_nvof.missing():
        pytest.skip(sentence)
    noise = np.random.default_rng(1).integers(0, 256, (6, 240, 320), dtype=np.uint8)
    grays = [cv2.GaussianBlur(picture, (0, 0), 4) for picture in noise]
    backend = HardwareFlow(FarnebackParameters())
    together = list(backend.flows(grays, [(i, i + 1) for i in range(5)]))
    for i in range(5):
        (alone,) = backend.flows(grays, [(i, i + 1)])
        np.testing.assert_array_equal(alone, together[i])
