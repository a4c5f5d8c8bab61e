"""The painter against exact geometry, and what its pictures must show."""

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest

from attengait.synth.body import draw_body
from attengait.synth.clothes import MATERIALS, Outfit, Part, carrying_arm, draw_outfit, dress
from attengait.synth.gait import draw_gait
from attengait.synth.render import Painter, make_atlas, project
from attengait.synth.scene import FOCAL_PX, HEIGHT_PX, WIDTH_PX, Camera, Room, camera_for
from attengait.synth.seeds import generator
from attengait.synth.sequence import render_sequence
from attengait.synth.skeleton import SEGMENTS, Pose, walk
from attengait.synth.texture import TEXTURE_SIZE, noise

CAMERA = Camera(  # at the origin, looking along x
    position=np.zeros(3), rotation=np.array([[0.0, -1.0, 0.0], [0.0, 0.0, -1.0], [1.0, 0.0, 0.0]])
)

EMPTY = Room(
    picture=np.zeros((HEIGHT_PX, WIDTH_PX, 3), np.uint8), floor=np.full((HEIGHT_PX, WIDTH_PX, 2), 1e3, np.float32)
)


def plain_atlas() -> np.ndarray:
    return make_atlas([np.full((TEXTURE_SIZE, TEXTURE_SIZE, 3), 20 * i + 40, np.uint8) for i in range(len(MATERIALS))])


def ellipsoid(place: tuple[float, float, float], axes: tuple[float, float, float], material: str = "top") -> Part:
    return Part(segment="pelvis", start=place, end=place, start_axes=axes, end_axes=axes, material=material)


def paint(
    parts: list[Part], turn: np.ndarray | None = None, texture: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """One frame of parts on the pelvis, which is at (5, 0, 0) and may be turned there."""
    turn = np.eye(3) if turn is None else turn
    num_segments = len(SEGMENTS)
    pose = Pose(
        origins=np.tile(np.array([5.0, 0.0, 0.0]), (1, num_segments, 1)),
        rotations=np.tile(turn, (1, num_segments, 1, 1)),
    )
    atlas = plain_atlas() if texture is None else make_atlas([texture] * len(MATERIALS))
    return Painter(EMPTY, project(parts, pose, CAMERA, np.random.default_rng(0)), atlas).paint(0)


def traced(axes: tuple[float, float, float], place: tuple[float, float, float], turn: np.ndarray) -> np.ndarray:
    """The slow twin: one ray for each pixel, intersected exactly with an ellipsoid about (5, 0, 0) + turn @ place."""
    columns, rows = np.meshgrid(np.arange(WIDTH_PX) - (WIDTH_PX - 1) / 2, np.arange(HEIGHT_PX) - (HEIGHT_PX - 1) / 2)
    rays = np.stack([columns, rows, np.full(columns.shape, FOCAL_PX)], axis=-1) @ CAMERA.rotation
    to_sphere = np.diag(1 / np.array(axes)) @ turn.T
    start = to_sphere @ -(np.array([5.0, 0.0, 0.0]) + turn @ place)
    rays = rays @ to_sphere.T
    a, b, c = (rays**2).sum(-1), rays @ start, start @ start - 1
    return np.asarray(b**2 - a * c > 0)


@pytest.mark.parametrize("seed", range(6))
def test_an_ellipsoid_covers_the_pixels_whose_rays_meet_it(seed: int) -> None:
    rng = np.random.default_rng(seed)
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    turn *= np.sign(np.linalg.det(turn))
    axes = tuple(rng.uniform(0.06, 0.25, 3).tolist())
    place = tuple(rng.uniform(-0.5, 0.5, 3).tolist())
    silhouette = paint([ellipsoid(place, axes)], turn)[1] > 0
    exact = traced(axes, place, turn)
    # one perspective for the whole part: the outline is off by a part of a pixel
    assert (silhouette & exact).sum() / (silhouette | exact).sum() > 0.96


def test_a_swept_ellipsoid_is_the_union_of_the_ellipsoids_on_its_way() -> None:
    start, end = np.array([0.1, -0.4, 0.3]), np.array([-0.1, 0.3, -0.4])
    first, last = np.array([0.10, 0.12, 0.11]), np.array([0.06, 0.05, 0.06])
    part = Part(
        segment="pelvis",
        start=tuple(start.tolist()),
        end=tuple(end.tolist()),
        start_axes=tuple(first.tolist()),
        end_axes=tuple(last.tolist()),
        material="top",
    )
    swept = paint([part])[1] > 0
    union = np.zeros_like(swept)
    for t in np.linspace(0, 1, 60):
        axes, place = first + t * (last - first), start + t * (end - start)
        union |= traced(tuple(axes.tolist()), tuple(place.tolist()), np.eye(3))
    assert (swept & union).sum() / (swept | union).sum() > 0.95


def test_the_nearer_part_hides_the_farther_one_whatever_the_order() -> None:
    near, far = ellipsoid((-0.5, 0, 0), (0.1, 0.1, 0.1), "top"), ellipsoid((0.5, 0, 0), (0.1, 0.3, 0.1), "bag")
    one, other = paint([near, far])[0], paint([far, near])[0]
    np.testing.assert_array_equal(one, other)
    middle = one[HEIGHT_PX // 2, WIDTH_PX // 2 - 2 : WIDTH_PX // 2 + 2, 0]
    beside = one[HEIGHT_PX // 2, WIDTH_PX // 2 + 15, 0]
    assert (middle < beside).all()  # the top's texture is darker than the bag's


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("length", [0.0, 0.3])
def test_light_falls_from_the_upper_left(axis: int, length: float) -> None:
    end = [0.0, 0.0, 0.0]
    end[axis] = length
    part = Part(
        segment="pelvis",
        start=(0, 0, 0),
        end=(end[0], end[1], end[2]),
        start_axes=(0.2, 0.2, 0.2),
        end_axes=(0.2, 0.2, 0.2),
        material="top",
    )
    picture, silhouette = paint([part])
    x, y, width, height = cv2.boundingRect(silhouette)
    upper_left = picture[y + height // 4, x + width // 4, 0]
    lower_right = picture[y + 3 * height // 4, x + 3 * width // 4, 0]
    assert upper_left > 1.3 * lower_right > 0


def test_a_texture_starts_in_front_and_goes_round_by_the_left() -> None:
    halves = np.zeros((TEXTURE_SIZE, TEXTURE_SIZE, 3), np.uint8)
    halves[:, : TEXTURE_SIZE // 2, 2] = 200  # the left side is red
    halves[:, TEXTURE_SIZE // 4 : -TEXTURE_SIZE // 4, 1] = 200  # the back is green
    towards, away = np.diag([-1.0, -1.0, 1.0]), np.eye(3)
    for turn, left_side, back in ((towards, 1, False), (away, -1, True)):
        picture, silhouette = paint([ellipsoid((0, 0, 0), (0.2, 0.2, 0.3), "head")], turn, halves)
        x, y, width, height = cv2.boundingRect(silhouette)
        row = picture[y + height // 2].astype(int)
        beside = row[x + width // 2 + left_side * width // 4], row[x + width // 2 - left_side * width // 4]
        assert beside[0][2] > 50 > beside[1][2]
        assert (row[x + width // 2, 1] > 50) == back


def test_parts_outside_the_picture_leave_nothing() -> None:
    picture, silhouette = paint([ellipsoid((0.0, 9.0, 0.0), (0.1, 0.1, 0.1))])
    assert not picture.any()
    assert not silhouette.any()


def test_textures_have_no_seam() -> None:
    values = noise(np.random.default_rng(0), 64, 4.0)
    inside = np.abs(np.diff(values, axis=1)).mean()
    assert np.abs(values[:, 0] - values[:, -1]).mean() < 2 * inside


@pytest.mark.parametrize("view", [0, 45, 90, 135, 180, 270])
@pytest.mark.parametrize("num_frames", [24, 60])
def test_a_tall_fast_walker_stays_in_the_picture(view: int, num_frames: int) -> None:
    camera = camera_for(view, num_frames)
    half = 1.5 * num_frames / 25 / 2
    corners = np.array([[x, y, z] for x in (-half, half) for y in (-0.3, 0.3) for z in (0.0, 1.95)])
    seen = camera.to_camera(corners)
    pixels = FOCAL_PX * seen[:, :2] / seen[:, 2:]
    assert (seen[:, 2] > 1).all()
    assert (np.abs(pixels) < [WIDTH_PX / 2, HEIGHT_PX / 2]).all()


def test_view_000_comes_nearer_180_goes_away_and_090_crosses() -> None:
    def boxes(view: int) -> list[tuple[int, int, int, int]]:
        return [cv2.boundingRect(silhouette) for _, silhouette in render_sequence(0, 2, "nm-01", view, 30)]

    coming, crossing, leaving = boxes(0), boxes(90), boxes(180)
    assert coming[-1][3] > 1.2 * coming[0][3]
    assert leaving[-1][3] < coming[-1][3] / 1.2 < coming[-1][3]
    assert abs(crossing[-1][0] - crossing[0][0]) > 60
    assert abs(coming[-1][0] + coming[-1][2] / 2 - WIDTH_PX / 2) < 40


@pytest.mark.parametrize("kind", ["nm", "bg", "cl"])
@pytest.mark.parametrize("view", [0, 90, 144])
def test_the_silhouette_is_one_whole_walker(kind: str, view: int) -> None:
    for _, silhouette in render_sequence(0, 3, f"{kind}-01", view, 8):
        assert set(np.unique(silhouette)) == {0, 255}
        _, _, stats, _ = cv2.connectedComponentsWithStats(silhouette)
        body = stats[1:, cv2.CC_STAT_AREA]
        assert body.max() > 0.97 * body.sum()
        x, y, width, height = cv2.boundingRect(silhouette)
        assert min(x, y) > 0
        assert x + width < WIDTH_PX
        assert y + height < HEIGHT_PX
        assert 90 < height < 200
        assert width < 0.9 * height


def test_what_moves_is_the_silhouette() -> None:
    frames = list(render_sequence(0, 4, "nm-02", 90, 60))
    pictures = np.stack([cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY) for picture, _ in frames]).astype(np.float32)
    room = np.median(pictures, axis=0)
    for frame in range(0, 60, 12):
        moving = np.abs(pictures[frame] - room) > 25
        inside = frames[frame][1] > 0
        assert (moving & inside).sum() > 0.9 * moving.sum()  # the rest is the walker's soft shadow
        assert (moving & inside).sum() > 0.4 * inside.sum()  # clothes and wall may have the same grey


def test_the_flow_inside_the_silhouette_follows_the_walk() -> None:
    frames = list(render_sequence(0, 4, "nm-01", 90, 4))
    gray = [cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY) for picture, _ in frames]
    flow = cv2.calcOpticalFlowFarneback(gray[1], gray[2], None, 0.5, 3, 15, 3, 5, 1.2, 0)
    inside = frames[1][1] > 0
    left = [cv2.boundingRect(silhouette)[0] for _, silhouette in frames]
    # view 090 sees the left side: he walks to the picture's left
    assert left[3] < left[0]
    assert np.median(flow[inside][:, 0]) < -1
    far = cv2.dilate(frames[1][1], np.ones((41, 41), np.uint8)) == 0
    assert np.abs(np.median(flow[far], axis=0)).max() < 0.05


@pytest.mark.parametrize("view", [36, 90, 180])
@pytest.mark.parametrize(
    ("worn", "least", "most"),
    [
        ({"bag": "backpack"}, 1.0, 1.35),
        ({"bag": "shoulder"}, 1.01, 1.25),
        ({"bag": "hand"}, 1.02, 1.25),
        ({"coat_length": 0.7}, 1.08, 1.6),
    ],
)
def test_a_coat_and_a_bag_add_to_the_same_walker(worn: dict[str, Any], least: float, most: float, view: int) -> None:
    body, gait = draw_body(generator(1, "body", 2)), draw_gait(generator(1, "gait", 2))
    pose, camera = walk(body, gait, 6), camera_for(view, 6)
    bare = draw_outfit("nm", generator(1, "walk", 2, "nm-01"))

    def area(outfit: Outfit) -> int:
        parts = project(dress(body, outfit), pose, camera, np.random.default_rng(0))
        painter = Painter(EMPTY, parts, plain_atlas())
        return sum(int((painter.paint(frame)[1] > 0).sum()) for frame in range(6))

    assert least < area(replace(bare, bag_side=0, **worn)) / area(bare) < most


def test_every_kind_of_bag_occurs_only_on_bg_walks() -> None:
    outfits = [draw_outfit("bg", generator(0, "walk", subject, "bg-01")) for subject in range(1, 40)]
    assert {outfit.bag for outfit in outfits} == {"backpack", "shoulder", "hand"}
    assert {carrying_arm(outfit) for outfit in outfits} == {None, 0, 1}
    assert draw_outfit("nm", generator(0, "walk", 1, "nm-01")).bag is None
    assert draw_outfit("cl", generator(0, "walk", 1, "cl-01")).coat_length is not None
