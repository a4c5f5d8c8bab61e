"""A silhouette is what has two values, a background and a person; all else is refused with what gives it away."""

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attengait.datasets.masks import LEVEL, Mask, MaskError, check_silhouettes, read_mask, read_silhouette, to_mask
from attengait.datasets.source import Fault
from attengait.kernels.pictures.encode import encode_silhouette
from attengait.store.skipped import Reason

HEIGHT, WIDTH = 96, 128


def figure(height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """A head, a body and two legs, uint8 [H, W] of 0 and 255."""
    picture = np.zeros((height, width), np.uint8)
    x, unit = width // 3, height // 12
    cv2.circle(picture, (x, 2 * unit), unit, 255, -1)
    cv2.ellipse(picture, (x, 5 * unit), (2 * unit, 3 * unit), 0, 0, 360, 255, -1)
    for side in (-1, 1):
        cv2.line(picture, (x, 7 * unit), (x + 2 * side * unit, 11 * unit), 255, unit)
    return picture


def photo(height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 256, (height, width), np.uint8)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2), None, 0, 255, cv2.NORM_MINMAX)


def png(pixels: np.ndarray, colour_type: int, depth: int = 8, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG file of uint8 [H, bytes of a row], of the kinds that OpenCV does not write."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour_type] * depth // 8
    header = struct.pack(">IIBBBBB", pixels.shape[1] // samples, pixels.shape[0], depth, colour_type, 0, 0, 0)
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def rgba(colours: np.ndarray, alpha: np.ndarray) -> bytes:
    return png(np.dstack([colours, colours, colours, alpha]).reshape(len(colours), -1), 6)


def read(tmp_path: Path, data: bytes, **options: object) -> Mask:
    path = tmp_path / "mask.png"
    path.write_bytes(data)
    return read_mask(str(path), **options)  # type: ignore[arg-type]


def refused(picture: np.ndarray) -> tuple[Reason, str]:
    with pytest.raises(MaskError) as caught:
        to_mask(picture)
    return caught.value.reason, caught.value.detail


def test_a_mask_of_0_and_255_stays_as_it_is_without_a_word() -> None:
    picture = figure()
    mask = to_mask(picture)
    assert mask.pixels is picture
    assert (mask.note, mask.detail) == (None, "")


@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.sampled_from([np.uint8, np.uint16]), st.data())
def test_two_values_are_a_mask_whatever_they_are(kind: type[np.unsignedinteger], data: st.DataObject) -> None:
    values = st.integers(0, np.iinfo(kind).max)
    low, high = sorted(data.draw(st.lists(values, min_size=2, max_size=2, unique=True)))
    mask = to_mask(np.where(figure() > 0, kind(high), kind(low)))
    np.testing.assert_array_equal(mask.pixels, figure())
    if (kind, low, high) != (np.uint8, 0, 255):
        assert (mask.note, mask.detail) == (
            Reason.SILHOUETTE_VALUES,
            f"its values {low} and {high} were read as 0 and 255",
        )


def test_palettes_16_bits_and_1_bit_are_read(tmp_path: Path) -> None:
    ones = (figure() > 0).astype(np.uint8)
    palette = (b"PLTE", bytes([0, 0, 0, 128, 0, 0]))
    for data in (
        png(ones, 3, 8, palette),
        png(ones, 0),
        png(np.dstack([ones * 0, ones]).reshape(HEIGHT, -1), 0, 16),  # 0 and 1 of 65,535
        cv2.imencode(".png", figure().astype(np.uint16) * 257)[1].tobytes(),
        cv2.imencode(".png", figure(), [cv2.IMWRITE_PNG_BILEVEL, 1])[1].tobytes(),
        cv2.imencode(".bmp", cv2.merge([figure()] * 3))[1].tobytes(),
    ):
        np.testing.assert_array_equal(read(tmp_path, data).pixels, figure())


@pytest.mark.parametrize("quality", [95, 75, 50, 30])
def test_noise_of_jpeg_does_not_move_the_crop(tmp_path: Path, quality: int) -> None:
    noisy = cv2.imencode(".jpg", figure(), [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
    assert len(np.unique(cv2.imdecode(np.frombuffer(noisy, np.uint8), 0))) > 2
    mask = read(tmp_path, noisy)
    np.testing.assert_array_equal(encode_silhouette(mask.pixels, 64), encode_silhouette(figure(), 64))
    assert mask.note is Reason.SILHOUETTE_CUT
    assert mask.detail.endswith("are the person")


@pytest.mark.parametrize("high", [1, 4, 8, 30])
def test_two_low_values_that_jpeg_has_blurred_are_refused(tmp_path: Path, high: int) -> None:
    """The loss is as large as the difference between them: the shape cannot be known."""
    path = tmp_path / "m.jpg"
    cv2.imwrite(str(path), (figure() // 255 * high).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 75])
    with pytest.raises(MaskError) as error:
        read_mask(str(path))
    assert error.value.reason is Reason.SILHOUETTE_GREY


def test_soft_edges_are_cut_at_the_level_between_the_two_values() -> None:
    soft = figure()
    soft[:, 30], soft[:, 31] = np.minimum(soft[:, 30], 100), np.minimum(soft[:, 31], 150)
    for level, person in ((LEVEL, soft > 127), (0.3, soft > 76), (0.7, soft > 178)):
        np.testing.assert_array_equal(to_mask(soft, level=level).pixels > 0, person)


def test_nobody_is_an_empty_mask_with_and_without_noise() -> None:
    empty = np.zeros((HEIGHT, WIDTH), np.uint8)
    assert not to_mask(empty).pixels.any()
    empty[40, 50:60] = np.arange(10)
    assert not to_mask(empty).pixels.any()


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_a_distant_walker_with_soft_edges_is_seen_in_a_large_picture(tmp_path: Path, suffix: str) -> None:
    far = np.zeros((1080, 1920), np.uint8)
    cv2.ellipse(far, (800, 600), (13, 40), 0, 0, 360, 255, -1)
    soft = cv2.GaussianBlur(far, (3, 3), 0)
    assert np.count_nonzero(soft) < 0.001 * soft.size
    mask = read(tmp_path, cv2.imencode(suffix, soft)[1].tobytes())
    assert np.count_nonzero(mask.pixels != far) < 0.02 * np.count_nonzero(far)
    assert mask.note is Reason.SILHOUETTE_CUT


def test_a_map_of_small_people_is_no_empty_silhouette() -> None:
    people = np.zeros((1080, 1920), np.uint8)
    people[500:600, 900:940], people[500:600, 1200:1240] = 1, 2
    assert refused(people) == (Reason.SILHOUETTE_GREY, "it has 3 values from 0 to 2")


def test_faint_noise_of_jpeg_is_nobody() -> None:
    noise = np.zeros((1080, 1920), np.uint8)
    noise[500:508, 900:908], noise[500:508, 908:916] = 1, 2
    assert not to_mask(noise, is_lossy=True).pixels.any()


@pytest.mark.parametrize(
    ("picture", "reason", "detail"),
    [
        (np.full((HEIGHT, WIDTH), 255, np.uint8), Reason.SILHOUETTE_FULL, "all of it has the value 255"),
        (np.full((HEIGHT, WIDTH), 1, np.uint8), Reason.SILHOUETTE_FULL, "all of it has the value 1"),
        (255 - figure(), Reason.SILHOUETTE_INVERTED, "% of it is white, and 100 % of its border"),
        (255 - figure(64, 44), Reason.SILHOUETTE_INVERTED, "it seems to be inverted"),
        (photo(), Reason.SILHOUETTE_GREY, "of it between dark and bright"),
        (photo() // 8, Reason.SILHOUETTE_GREY, "values from 0 to 31"),
        (255 - photo() // 4, Reason.SILHOUETTE_GREY, "values from 192 to 255"),
    ],
)
def test_what_is_no_silhouette_is_refused_with_what_gives_it_away(
    picture: np.ndarray, reason: Reason, detail: str
) -> None:
    found, said = refused(picture)
    assert found is reason
    assert detail in said


@pytest.mark.parametrize("values", [(1, 2), (128, 255), (50, 255), (1, 255), (1, 2, 3, 4), (20, 90, 160, 230)])
def test_maps_of_body_parts_people_or_shadows_are_no_silhouettes(values: tuple[int, ...]) -> None:
    labels = np.zeros_like(figure())
    for value, rows in zip(values, np.array_split(np.arange(8, 88), len(values)), strict=True):
        labels[rows] = np.where(figure()[rows] > 0, value, 0)
    assert refused(labels)[0] is Reason.SILHOUETTE_GREY


def test_a_shape_in_the_alpha_channel_only_is_a_fault_of_its_own(tmp_path: Path) -> None:
    white = np.full((HEIGHT, WIDTH), 255, np.uint8)
    for data in (
        rgba(white, figure()),
        rgba(figure(), np.roll(figure(), 9, axis=1)),
        png((figure() > 0).astype(np.uint8), 3, 8, (b"PLTE", bytes([255] * 6)), (b"tRNS", bytes([0, 255]))),
        png(np.dstack([white, figure()]).reshape(HEIGHT, -1), 4),
    ):
        with pytest.raises(MaskError) as caught:
            read(tmp_path, data)
        assert caught.value.reason is Reason.SILHOUETTE_ALPHA


def test_an_alpha_channel_that_says_nothing_else_does_no_harm(tmp_path: Path) -> None:
    for alpha in (np.full((HEIGHT, WIDTH), 255, np.uint8), figure()):
        np.testing.assert_array_equal(read(tmp_path, rgba(figure(), alpha)).pixels, figure())


def test_another_size_than_the_frame_s_is_said_with_both(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    path.write_bytes(cv2.imencode(".png", figure(48, 64))[1].tobytes())
    faults: list[Fault] = []
    assert read_silhouette(str(path), 7, faults, frame_shape=(HEIGHT, WIDTH)) is None
    detail = "the silhouette has 64 x 48 pixels, the frame 128 x 96"
    assert faults == [Fault(Reason.WRONG_SIZE, 7, str(path), detail)]


def test_crops_of_opengait_come_in_as_they_are(data: Path) -> None:
    """Resized silhouettes have grey edges; some of these fill the crop."""
    with np.load(data / "opengait_silhouettes.npz") as reference:
        crops = reference["crops"]
    for frames in (crops, crops[:, :, 10:54]):
        faults: list[Fault] = []
        outlines, numbers = check_silhouettes(frames, faults)
        np.testing.assert_array_equal(outlines, frames)
        assert (numbers, faults) == (list(range(1, len(frames) + 1)), [])


@pytest.mark.parametrize("high", [1, 7, 254])
def test_arrays_of_two_values_become_0_and_255(high: int) -> None:
    shapes = np.stack([np.roll(figure(64, 44), shift, axis=1) for shift in range(4)])
    shapes[0] = 0
    faults: list[Fault] = []
    outlines, numbers = check_silhouettes(np.where(shapes > 0, np.uint8(high), np.uint8(0)), faults)
    np.testing.assert_array_equal(outlines, shapes)
    assert numbers == [2, 3, 4]
    assert [(fault.reason, fault.number) for fault in faults] == [
        (Reason.SILHOUETTE_EMPTY, 1),
        *((Reason.SILHOUETTE_VALUES, number) for number in numbers),
    ]


def test_frames_of_two_values_among_others_become_0_and_255_each(data: Path) -> None:
    with np.load(data / "opengait_silhouettes.npz") as reference:
        soft = reference["crops"][0]
    shape = figure(64, 64)
    low, ones = np.where(shape > 0, np.uint8(255), np.uint8(10)), shape // 255
    faults: list[Fault] = []
    outlines, numbers = check_silhouettes(np.stack([shape, ones, soft, low, ones * 100]), faults)
    np.testing.assert_array_equal(outlines, np.stack([shape, shape, soft, shape, shape]))
    assert numbers == [1, 2, 3, 4, 5]
    assert [(fault.reason, fault.number, fault.detail) for fault in faults] == [
        (Reason.SILHOUETTE_VALUES, 2, "its values 0 and 1 were read as 0 and 255"),
        (Reason.SILHOUETTE_VALUES, 4, "its values 10 and 255 were read as 0 and 255"),
        (Reason.SILHOUETTE_VALUES, 5, "its values 0 and 100 were read as 0 and 255"),
    ]


def test_arrays_of_photos_and_inverted_ones_are_refused() -> None:
    for picture, reason in (
        (photo(64, 44), Reason.SILHOUETTE_GREY),
        (255 - cv2.GaussianBlur(figure(64, 44), (3, 3), 0), Reason.SILHOUETTE_INVERTED),
    ):
        faults: list[Fault] = []
        assert check_silhouettes(np.stack([picture] * 3), faults)[1] == []
        assert [fault.reason for fault in faults] == [reason] * 3
