"""JPEG pictures read by DALI are those that OpenCV reads; a damaged one costs nothing but itself."""

import logging
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest

from attengait.datasets import Pictures, SourceSequence, Video
from attengait.datasets.pictures import decode_gray, read_gray
from attengait.errors import AttenGaitError
from attengait.kernels.runtime.launch import CudaDevice, HostDevice
from attengait.pipelines.preprocess import jpeg
from attengait.pipelines.preprocess.jpeg import BATCH_PICTURES, JpegReader, has_jpeg

needs_dali = pytest.mark.skipif(jpeg.missing() is not None, reason=str(jpeg.missing()))


@pytest.fixture
def reader():
    return JpegReader(HostDevice(), num_threads=1)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Paths of colour and grey pictures of several formats and sizes, more than a batch; to be read only."""
    folder, random, paths = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0), []
    for i in range(BATCH_PICTURES + 13):
        shape = (40 + i % 3, 57, 3)[: 2 + (i % 5 > 0)]
        picture = cv2.GaussianBlur(random.integers(0, 256, shape, np.uint8), (0, 0), 2)
        paths.append(str(folder / f"{i}.{('jpg', 'png', 'JPG', 'jpeg', 'bmp')[i % 5]}"))
        assert cv2.imwrite(paths[-1], picture)
    return paths


def assert_same(read, paths):
    expected = [read_gray(path) for path in paths]
    assert [each is None for each in read] == [each is None for each in expected]
    for ours, theirs in zip(read, expected, strict=True):
        if theirs is not None:
            np.testing.assert_array_equal(ours, theirs)


@needs_dali
def test_on_the_cpu_dali_reads_what_opencv_reads(pictures, reader):
    read = list(reader(pictures))
    assert all(gray.dtype == np.uint8 for gray in read)
    assert_same(read, pictures)


@pytest.mark.gpu
def test_on_a_gpu_jpeg_differs_little_and_the_rest_not_at_all(pictures):
    device = CudaDevice()
    for path, gray in zip(pictures, JpegReader(device, num_threads=2)(pictures), strict=True):
        expected = read_gray(path)
        if jpeg.is_jpeg(path):
            assert not isinstance(gray, np.ndarray)
            difference = np.abs(device.download(gray).astype(int) - expected)
            assert difference.max() <= 2
        else:
            np.testing.assert_array_equal(gray, expected)


@needs_dali
def test_pictures_stay_what_they_are_when_others_are_read_later(pictures, reader):
    first = list(reader(pictures[:5]))
    for _ in range(10):
        list(reader(pictures[5:]))
    assert_same(first, pictures[:5])


@needs_dali
def test_threads_may_read_at_once(pictures, reader):
    with ThreadPoolExecutor(4) as threads:
        for read in threads.map(lambda _: list(reader(pictures)), range(8)):
            assert_same(read, pictures)


def test_pictures_are_read_a_batch_at_a_time(pictures, monkeypatch):
    sizes = []

    class Counting(JpegReader):
        def _decode(self, pictures):
            sizes.append(len(pictures))
            return [None] * len(pictures)

    jpegs = [path for path in pictures if jpeg.is_jpeg(path)] * 2
    read = Counting(HostDevice(), num_threads=1)(jpegs)
    next(read)
    assert sizes == [BATCH_PICTURES]
    assert_same([read_gray(jpegs[0]), *read], jpegs)
    assert sum(sizes) == len(jpegs)


def damaged(path, kind):
    data = bytearray(Path(path).read_bytes())
    if kind == "header":
        data[20:200] = bytes(180)
        return bytes(data)
    return {"truncated": bytes(data[: len(data) // 2]), "empty": b"", "text": b"no picture"}[kind]


@needs_dali
@pytest.mark.parametrize("kind", ["header", "truncated", "empty", "text"])
def test_a_damaged_picture_costs_only_itself(pictures, reader, tmp_path, kind, caplog):
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(damaged(pictures[0], kind))
    paths = [*pictures[:7], str(bad), *pictures[7:]]
    with caplog.at_level(logging.WARNING):
        read = list(reader(paths))
        assert list(reader([str(bad)])) == [None]
    assert_same(read, paths)
    assert [i for i, gray in enumerate(read) if gray is None] == [7]
    # What is known to be damaged does not get as far as DALI; what it refuses is said once.
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == (1 if kind in ("header", "text") else 0)
    assert all(
        each.startswith("DALI cannot decode some pictures, OpenCV does it: nvImageCodec failure") for each in said
    )
    assert all("\n" not in each for each in said)


@needs_dali
def test_after_a_refusal_dali_decodes_again(pictures, reader, tmp_path, monkeypatch):
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(damaged(pictures[0], "header"))
    assert list(reader([str(bad)])) == [None]
    monkeypatch.setattr(jpeg, "decode_gray", None)
    assert_same(list(reader(pictures[:1])), pictures[:1])


@pytest.fixture
def raster(tmp_path, pictures):
    """A picture that OpenCV decodes and DALI does not, under the name of a JPEG."""
    path = tmp_path / "raster.jpg"
    path.write_bytes(cv2.imencode(".ras", read_gray(pictures[0]))[1].tobytes())
    return str(path)


@needs_dali
def test_a_refused_picture_is_decoded_by_opencv_alone_and_named(pictures, reader, raster, monkeypatch):
    by_opencv = []
    monkeypatch.setattr(jpeg, "decode_gray", lambda data: by_opencv.append(data) or decode_gray(data))
    jpegs = [path for path in pictures if jpeg.is_jpeg(path)]
    paths = [*jpegs[:5], raster, *jpegs[5:9]]
    assert_same(list(reader(paths)), paths)
    assert by_opencv == [Path(raster).read_bytes()]
    assert reader.refused == {raster: "nvImageCodec failure: '#4'"}


@pytest.mark.parametrize(
    "failure",
    [
        RuntimeError("Critical error in pipeline:\nencountered:\n\nCan't allocate 4096 bytes on device 0.\nStacktrace"),
        RuntimeError("encountered:\n\nFailed to decode sample #3 : CUDA allocation failed"),
        RuntimeError("nvImageCodec failure: '#5'"),
        RuntimeError("nvImageCodec failure: '#21'"),
        MemoryError(),
    ],
)
def test_any_other_failure_of_dali_is_no_reason_to_decode_otherwise(pictures, reader, monkeypatch, failure):
    class Failing:
        def run(self, files):
            raise failure

    monkeypatch.setattr(JpegReader, "_build", lambda self: Failing())
    with pytest.raises(AttenGaitError, match=r"^DALI failed to decode pictures on host: [^\n]+$"):
        list(reader(pictures))
    assert reader.refused == {}


@pytest.mark.parametrize(
    "said", ["nvImageCodec failure: '#3'", "Failed to decode sample #12 :", "nvImageCodec failure: '#19'"]
)
def test_what_dali_says_of_a_picture_is_a_refusal(pictures, reader, monkeypatch, said):
    class Refusing:
        def run(self, files):
            raise RuntimeError(f"Critical error in pipeline:\nencountered:\n\n{said}\nCurrent pipeline object is gone")

    monkeypatch.setattr(JpegReader, "_build", lambda self: Refusing())
    assert_same(list(reader(pictures)), pictures)
    assert reader.refused == {path: said for path in pictures if jpeg.is_jpeg(path)}


def test_the_gpu_is_made_the_current_one_before_dali_runs(pictures, monkeypatch):
    order = []

    class Watched(HostDevice):
        @property
        def xp(self):
            order.append("current")
            return super().xp

    class Refusing:
        def run(self, files):
            order.append("run")
            raise RuntimeError("nvImageCodec failure: '#4'")

    monkeypatch.setattr(JpegReader, "_build", lambda self: Refusing())
    list(JpegReader(Watched(), num_threads=1)(pictures[:1]))
    assert order == ["current", "run"]


def test_dali_that_cannot_begin_is_one_sentence(pictures, reader, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "attengait.pipelines.graphs", None)
    with pytest.raises(AttenGaitError, match=r"^DALI cannot decode pictures on host: "):
        list(reader(pictures))


def sequence(frames):
    return SourceSequence(subject="1", walk="nm-01", view="090", parts={"frames": frames, "silhouettes": frames})


def test_jpeg_is_found_among_the_frames_whatever_the_case():
    names = [["a-1.png", "a-2.JPG"], ["a-1.jpeg"], ["a-1.png", "jpg-2.bmp", "a.jpg-3.png"], []]
    found = [has_jpeg([sequence(Pictures.of("f", each))]) for each in names]
    assert found == [True, True, False, False]
    assert not has_jpeg([sequence(Video(path="a.jpg"))])
    assert has_jpeg([sequence(Pictures.of("f", each)) for each in reversed(names)])


def test_what_is_missing_is_said(monkeypatch):
    absent = {"nvidia.nvimgcodec"}
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name in absent else find_spec("sys"))
    assert "decoders are not installed" in jpeg.missing()
    absent.add("nvidia.dali")
    assert jpeg.missing() == "NVIDIA DALI is not installed"
    absent.clear()
    assert jpeg.missing() is None
