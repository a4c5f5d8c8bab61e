"""Flow images of a sequence equal the published program's and a plain transcription; what is left out is named."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from made import left_out
from plain_colour import plain_flow_image

from attengait.datasets import Pictures, SourceSequence
from attengait.datasets import masks as masks_module
from attengait.datasets import pictures as pictures_module
from attengait.errors import ParameterError
from attengait.kernels.flow import backends as flow_module
from attengait.kernels.flow.backends import BACKENDS, FarnebackParameters, OpenCVFlow
from attengait.kernels.pictures.encode import encode, encode_silhouette
from attengait.preprocessing import flow as recipe_module
from attengait.preprocessing.flow import FlowRecipe, SilhouetteFlowRecipe
from attengait.store.shards import MadeSequence

HEIGHT, WIDTH = 96, 128


def farneback(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return cv2.calcOpticalFlowFarneback(first, second, None, 0.5, 3, 15, 3, 5, 1.2, 0)


class Walk:
    """A synthetic sequence on disk: a textured figure that crosses a textured still background, and its silhouettes."""

    def __init__(self, root: Path, num_frames: int) -> None:
        self.root = root
        random = np.random.default_rng(0)
        noise = random.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        background = cv2.GaussianBlur(noise, (0, 0), 2)
        figure = random.integers(0, 256, (60, 24, 3), dtype=np.uint8)
        self.numbers = list(range(1, num_frames + 1))
        for folder in ("rgb", "silh"):
            (root / folder).mkdir(parents=True)
        for number in self.numbers:
            frame, silhouette = background.copy(), np.zeros((HEIGHT, WIDTH), np.uint8)
            top, left = 20 + number % 3, min(2 + 3 * number, WIDTH - 26)
            frame[top : top + 60, left : left + 24] = figure
            silhouette[top : top + 60, left : left + 24] = 255
            cv2.imwrite(str(self.frame(number)), frame)
            cv2.imwrite(str(self.silhouette(number)), silhouette)

    def frame(self, number: int) -> Path:
        return self.root / "rgb" / f"001-nm-01-090-{number:03d}.png"

    def silhouette(self, number: int) -> Path:
        return self.root / "silh" / f"001-nm-01-090-{number:03d}.png"

    def sequence(self) -> SourceSequence:
        frames, silhouettes = (
            Pictures.of(self.root / folder, [path.name for path in (self.root / folder).iterdir()])
            for folder in ("rgb", "silh")
        )
        parts = {"frames": frames, "silhouettes": silhouettes}
        return SourceSequence(subject="001", walk="nm-01", view="090", parts=parts)

    def expected(self, pairs: list[tuple[int, int]]) -> np.ndarray:
        """The flow images of pairs of frame numbers, in full."""
        return np.stack([self._expected(first, second) for first, second in pairs])

    def _expected(self, first: int, second: int) -> np.ndarray:
        grays = [cv2.imread(str(self.frame(number)), cv2.IMREAD_GRAYSCALE) for number in (first, second)]
        silhouette = cv2.imread(str(self.silhouette(second)), cv2.IMREAD_GRAYSCALE)
        return plain_flow_image(farneback(*grays), silhouette)


@pytest.fixture
def walk(tmp_path: Path) -> Walk:
    return Walk(tmp_path, 12)


def neighbours(numbers: list[int]) -> list[tuple[int, int]]:
    return list(pairwise(numbers))


def check(walk: Walk, result: MadeSequence, pairs: list[tuple[int, int]]) -> None:
    """The images are those of the pairs, and belong to each pair's second frame."""
    assert result.frame_numbers.tolist() == [second for _, second in pairs]
    assert result.frame_numbers.dtype == np.int64
    assert result.pictures.dtype == np.uint8
    np.testing.assert_array_equal(result.pictures, walk.expected(pairs))


@pytest.mark.parametrize("name", ["001_nm01", "009_nm02", "015_nm01"])
def test_real_sequences_equal_the_published_program(shared: Path, tmp_path: Path, name: str) -> None:
    with np.load(shared / "reference" / "preprocess.npz") as file:
        frames, silhouettes = file[f"{name}_bgr"], file[f"{name}_silhouette"]
        expected, indices = file[f"{name}_flow_images"], file[f"{name}_frame_index"]
    for folder, pictures in (("rgb", frames), ("silh", silhouettes)):
        (tmp_path / folder).mkdir()
        for number, picture in enumerate(pictures, 1):
            cv2.imwrite(str(tmp_path / folder / f"001-nm-01-090-{number:03d}.png"), picture)
    walk = Walk.__new__(Walk)
    walk.root = tmp_path
    result = FlowRecipe().make(walk.sequence())
    assert left_out(result) == ()
    assert (result.frame_numbers - 1).tolist() == indices.tolist()
    np.testing.assert_array_equal(result.pictures, expected)


def test_a_whole_sequence_equals_the_plain_transcription(walk: Walk) -> None:
    result = FlowRecipe().make(walk.sequence())
    check(walk, result, neighbours(walk.numbers))
    assert left_out(result) == ()


def test_blocks_make_no_difference(walk: Walk, monkeypatch: pytest.MonkeyPatch) -> None:
    walk.frame(4).unlink()
    walk.silhouette(9).write_bytes(b"damaged")
    whole = FlowRecipe().make(walk.sequence())
    for block in (1, 2, 3, 5, 11):
        monkeypatch.setattr(recipe_module, "BLOCK_FRAMES", block)
        result = FlowRecipe().make(walk.sequence())
        np.testing.assert_array_equal(result.pictures, whole.pictures)
        np.testing.assert_array_equal(result.frame_numbers, whole.frame_numbers)
        assert result.skipped == whole.skipped


def test_a_missing_number_on_either_side_drops_the_frame_and_the_flow_across_it(walk: Walk) -> None:
    walk.frame(4).unlink()
    walk.silhouette(9).unlink()
    result = FlowRecipe().make(walk.sequence())
    check(walk, result, neighbours([1, 2, 3]) + neighbours([5, 6, 7, 8]) + neighbours([10, 11, 12]))
    assert left_out(result) == (("no matching frame number", (4, 9), ()),)


def test_bridge_takes_the_flow_across_missing_numbers(walk: Walk) -> None:
    walk.frame(4).unlink()
    walk.silhouette(9).unlink()
    result = FlowRecipe(gap="bridge").make(walk.sequence())
    check(walk, result, neighbours([1, 2, 3, 5, 6, 7, 8, 10, 11, 12]))
    assert left_out(result) == (("no matching frame number", (4, 9), ()),)


def test_skip_and_bridge_agree_without_a_gap(walk: Walk) -> None:
    skipped, bridged = (FlowRecipe(gap=gap).make(walk.sequence()) for gap in ("skip", "bridge"))
    np.testing.assert_array_equal(skipped.pictures, bridged.pictures)


def test_a_number_missing_on_both_sides_is_named_where_it_costs_an_image(walk: Walk) -> None:
    for number in (5, 6):
        walk.frame(number).unlink()
        walk.silhouette(number).unlink()
    result = FlowRecipe().make(walk.sequence())
    check(walk, result, neighbours([1, 2, 3, 4]) + neighbours([7, 8, 9, 10, 11, 12]))
    assert left_out(result) == (("no matching frame number", (6,), ()),)
    assert FlowRecipe(gap="bridge").make(walk.sequence()).skipped == ()


def test_frames_before_and_after_the_silhouettes_are_not_read(walk: Walk, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in (1, 2, 11, 12):
        walk.silhouette(number).unlink()
    read: list[str] = []
    plain_read = pictures_module.read_whole
    for module in (masks_module, pictures_module):
        monkeypatch.setattr(module, "read_whole", lambda path: (read.append(path), plain_read(path))[1])
    result = FlowRecipe().make(walk.sequence())
    check(walk, result, neighbours(list(range(3, 11))))
    assert left_out(result) == (("no matching frame number", (1, 2, 11, 12), ()),)
    assert sorted(read) == sorted(
        [str(walk.frame(n)) for n in range(3, 11)] + [str(walk.silhouette(n)) for n in range(4, 11)]
    )


def test_an_unreadable_frame_is_dropped_like_a_missing_number(walk: Walk, capfd: pytest.CaptureFixture[str]) -> None:
    walk.frame(5).write_bytes(walk.frame(5).read_bytes()[:-20])
    result = FlowRecipe().make(walk.sequence())
    check(walk, result, neighbours([1, 2, 3, 4]) + neighbours([6, 7, 8, 9, 10, 11, 12]))
    assert left_out(result) == (("unreadable picture", (5,), (str(walk.frame(5)),)),)
    assert capfd.readouterr() == ("", "")
    check(
        walk,
        FlowRecipe(gap="bridge").make(walk.sequence()),
        neighbours([1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 12]),
    )


def test_a_frame_of_another_size_is_dropped_like_a_missing_number(walk: Walk) -> None:
    cv2.imwrite(str(walk.frame(5)), np.zeros((WIDTH, HEIGHT, 3), np.uint8))
    result = FlowRecipe().make(walk.sequence())
    check(walk, result, neighbours([1, 2, 3, 4]) + neighbours([6, 7, 8, 9, 10, 11, 12]))
    assert left_out(result) == (("wrong size", (5,), (str(walk.frame(5)),)),)


@pytest.mark.parametrize("block", [32, 3])
def test_an_odd_first_frame_costs_itself_and_not_the_sequence(
    walk: Walk, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(recipe_module, "BLOCK_FRAMES", block)
    cv2.imwrite(str(walk.frame(1)), np.zeros((WIDTH, HEIGHT, 3), np.uint8))
    result = FlowRecipe().make(walk.sequence())
    check(walk, result, neighbours(walk.numbers[1:]))
    assert left_out(result) == (("wrong size", (1,), (str(walk.frame(1)),)),)
    assert result.skipped[0].detail == "a frame has 96 x 128 pixels, but most of the sequence have 128 x 96"


def test_of_two_sizes_that_are_equally_frequent_the_first_counts(walk: Walk) -> None:
    for number in range(7, 13):
        cv2.imwrite(str(walk.frame(number)), np.zeros((WIDTH, HEIGHT, 3), np.uint8))
    check(walk, FlowRecipe().make(walk.sequence()), neighbours([1, 2, 3, 4, 5, 6]))


def test_a_bad_silhouette_costs_its_own_image_only(walk: Walk) -> None:
    walk.silhouette(1).write_bytes(b"of no use, as the first frame has no flow")
    walk.silhouette(4).write_bytes(b"damaged")
    cv2.imwrite(str(walk.silhouette(6)), np.full((HEIGHT, WIDTH + 1), 255, np.uint8))
    cv2.imwrite(str(walk.silhouette(8)), np.zeros((HEIGHT, WIDTH), np.uint8))
    result = FlowRecipe().make(walk.sequence())
    check(walk, result, [pair for pair in neighbours(walk.numbers) if pair[1] not in {4, 6, 8}])
    assert left_out(result) == (
        ("unreadable picture", (4,), (str(walk.silhouette(4)),)),
        ("wrong size", (6,), (str(walk.silhouette(6)),)),
        ("silhouette empty", (8,), ()),
    )


def test_a_silhouette_at_the_threshold_is_empty_and_one_above_is_not(walk: Walk) -> None:
    silhouette = np.zeros((HEIGHT, WIDTH), np.uint8)
    silhouette[20:70, 40] = 255
    cv2.imwrite(str(walk.silhouette(3)), silhouette)
    silhouette[70, 40] = 255
    cv2.imwrite(str(walk.silhouette(5)), silhouette)
    result = FlowRecipe(silhouette_threshold=50 * 255).make(walk.sequence())
    check(walk, result, [pair for pair in neighbours(walk.numbers) if pair[1] != 3])
    assert left_out(result) == (("silhouette empty", (3,), ()),)


def test_flow_is_computed_only_where_it_gives_an_image(walk: Walk, monkeypatch: pytest.MonkeyPatch) -> None:
    num_flows = 0

    class Counting(OpenCVFlow):
        def flows(self, grays: list[np.ndarray], pairs: list[tuple[int, int]]) -> Iterator[np.ndarray]:
            nonlocal num_flows
            num_flows += len(pairs)
            return super().flows(grays, pairs)

    counting = replace(flow_module.BACKENDS["opencv"], make=Counting)
    monkeypatch.setitem(flow_module.BACKENDS, "opencv", counting)
    cv2.imwrite(str(walk.silhouette(8)), np.zeros((HEIGHT, WIDTH), np.uint8))
    walk.frame(4).unlink()
    assert len(FlowRecipe().make(walk.sequence()).pictures) == num_flows == 8


def test_a_sequence_with_fewer_than_five_images_gives_none_and_is_named(tmp_path: Path) -> None:
    assert len(FlowRecipe().make(Walk(tmp_path / "six", 6).sequence()).pictures) == 5
    result = FlowRecipe().make(Walk(tmp_path / "five", 5).sequence())
    assert result.pictures.shape == (0, 64, 64, 3)
    assert result.frame_numbers.shape == (0,)
    assert left_out(result) == (("too few pictures", (), ()),)


def test_a_sequence_of_nothing_usable_is_named_too(walk: Walk) -> None:
    for number in walk.numbers:
        walk.frame(number).write_bytes(b"")
    result = FlowRecipe().make(walk.sequence())
    assert result.pictures.shape == (0, 64, 64, 3)
    assert [str(skip.reason) for skip in result.skipped] == ["unreadable picture", "too few pictures"]
    assert result.skipped[1].frames == ()


@pytest.mark.parametrize("flow", [name for name in ("opencv", "cpu") if BACKENDS[name].missing() is None])
def test_tiny_frames_cost_their_sequence_and_narrow_ones_are_used(flow: str, tmp_path: Path) -> None:
    for shape in ((1, 1), (60, 9), (9, 60), (10, 10), (300, 10), (10, 300)):
        walk = Walk(tmp_path / f"{shape}", 7)
        for number in walk.numbers:
            cv2.imwrite(str(walk.frame(number)), np.full(shape, number, np.uint8))
            silhouette = np.zeros(shape, np.uint8)
            silhouette[shape[0] // 4 : shape[0] // 2 + 1, : shape[1] // 2 + 1] = 255
            cv2.imwrite(str(walk.silhouette(number)), silhouette)
        result = FlowRecipe(silhouette_threshold=0, flow=flow).make(walk.sequence())
        if min(shape) >= 10:
            assert result.pictures.shape == (6, 64, 64, 3)
        else:
            assert len(result.pictures) == 0
            assert [(str(skip.reason), len(skip.frames)) for skip in result.skipped] == [
                ("wrong size", 7),
                ("too few pictures", 0),
            ]


def test_a_tiny_frame_does_not_say_how_large_the_others_must_be(walk: Walk) -> None:
    cv2.imwrite(str(walk.frame(1)), np.zeros((9, 9), np.uint8))
    result = FlowRecipe().make(walk.sequence())
    check(walk, result, neighbours([2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]))
    assert left_out(result) == (("wrong size", (1,), (str(walk.frame(1)),)),)


def test_farneback_parameters_reach_the_flow(walk: Walk) -> None:
    recipe = FlowRecipe(farneback=FarnebackParameters(winsize=31))
    assert not np.array_equal(recipe.make(walk.sequence()).pictures, walk.expected(neighbours(walk.numbers)))


def test_a_recipe_is_recorded_with_every_parameter() -> None:
    assert FlowRecipe().to_dict() == {
        "name": "attengait-casia-b",
        "version": 1,
        "flow": "opencv",
        "farneback": {
            "pyr_scale": 0.5,
            "levels": 3,
            "winsize": 15,
            "iterations": 3,
            "poly_n": 5,
            "poly_sigma": 1.2,
            "window": "box",
        },
        "crop_size": 64,
        "silhouette_threshold": 10000,
        "gap": "skip",
        "min_frames": 5,
        "encoding": "colour",
    }


def test_a_backend_that_is_not_farneback_s_records_its_own_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    hardware = replace(flow_module.BACKENDS["nvof"], own_parameters=lambda: {"output_grid": 2})
    monkeypatch.setitem(flow_module.BACKENDS, "nvof", hardware)
    recorded = FlowRecipe(flow="nvof").to_dict()
    assert recorded["nvof"] == {"output_grid": 2}
    assert "farneback" not in recorded
    with pytest.raises(ParameterError, match=r"^farneback .* left out"):
        FlowRecipe(flow="nvof", farneback=FarnebackParameters(winsize=9))


@pytest.mark.parametrize("encoding", ["uv", "uvm"])
def test_other_encodings_are_those_of_the_same_flow_and_silhouettes(walk: Walk, encoding: str) -> None:
    result = FlowRecipe(encoding=encoding).make(walk.sequence())
    assert result.frame_numbers.tolist() == walk.numbers[1:]
    for number, image in zip(walk.numbers[1:], result.pictures, strict=True):
        grays = [cv2.imread(str(walk.frame(n)), cv2.IMREAD_GRAYSCALE) for n in (number - 1, number)]
        silhouette = cv2.imread(str(walk.silhouette(number)), cv2.IMREAD_GRAYSCALE)
        np.testing.assert_array_equal(image, encode(farneback(*grays), silhouette, encoding, 64))
    assert result.pictures[..., 0].std() > 1
    empty = FlowRecipe(encoding=encoding, min_frames=99).make(walk.sequence())
    assert empty.pictures.shape == (0, *FlowRecipe(encoding=encoding).frame_shape)


def test_a_store_learns_the_encoding_and_its_scale() -> None:
    colour, uv = (FlowRecipe(encoding=encoding).attributes for encoding in ("colour", "uv"))
    assert colour == {"modality": "flow", "encoding": "colour", "recipe": FlowRecipe().to_dict()}
    assert uv == {
        "modality": "flow",
        "encoding": "uv",
        "encoding_steps_per_px": 8,
        "encoding_offset": 128,
        "recipe": FlowRecipe(encoding="uv").to_dict(),
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("flow", "raft"),
        ("gap", "jump"),
        ("crop_size", 0),
        ("crop_size", 63),
        ("crop_size", 64.0),
        ("silhouette_threshold", -1),
        ("min_frames", 0),
        ("min_frames", True),
        ("encoding", "hsv"),
    ],
)
def test_a_parameter_out_of_range_is_named_with_its_value(name: str, value: object) -> None:
    with pytest.raises(ParameterError, match=rf"^{name} .*{value!r}"):
        replace(FlowRecipe(), **{name: value})


@pytest.mark.parametrize("encoding", ["colour", "uv"])
def test_silhouette_and_flow_lie_over_each_other_silhouette_first(walk: Walk, encoding: str) -> None:
    both, flow = (kind(encoding=encoding) for kind in (SilhouetteFlowRecipe, FlowRecipe))
    made, alone = both.make(walk.sequence()), flow.make(walk.sequence())
    assert made.pictures.shape[1:] == both.frame_shape
    np.testing.assert_array_equal(made.pictures[..., 1:], alone.pictures)
    np.testing.assert_array_equal(made.frame_numbers, alone.frame_numbers)
    for number, picture in zip(made.frame_numbers.tolist(), made.pictures, strict=True):
        silhouette = cv2.imread(str(walk.silhouette(number)), cv2.IMREAD_GRAYSCALE)
        np.testing.assert_array_equal(picture[..., :1], encode_silhouette(silhouette, 64))


def test_a_store_of_both_names_its_channels() -> None:
    attributes = SilhouetteFlowRecipe(encoding="uvm").attributes
    assert attributes["modality"] == "silhouette+flow"
    assert (attributes["encoding"], attributes["encoding_steps_per_px"]) == ("gray+uvm", 8)
    assert attributes["channels"] == ["silhouette", "flow-u", "flow-v", "flow-m"]
    assert attributes["recipe"]["name"] == "attengait-silhouette+flow"
    assert SilhouetteFlowRecipe().attributes["channels"] == ["silhouette", "flow-r", "flow-g", "flow-b"]
