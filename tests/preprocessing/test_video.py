"""From videos to a store: the same bytes as from the same pictures; what is wrong with a video is one entry."""

import json
import os
from importlib import import_module
from pathlib import Path

import cv2
import numpy as np
import pytest

from attengait.benchmarks.preprocess import benchmark_preprocess
from attengait.datasets import Folders, Pictures, SourceSequence, Video
from attengait.datasets.reading import read_frames
from attengait.datasets.source import Fault
from attengait.errors import AttenGaitError, ParameterError
from attengait.preprocessing.flow import FlowRecipe
from attengait.preprocessing.run import PreprocessConfig, run_preprocessing
from attengait.store import open_store
from attengait.store.layout import report_location
from attengait.store.shards import MadeSequence
from attengait.store.skipped import Reason
from attengait.store.summary import summarise

casia, fakes, videos = map(import_module, ("casia", "store_fakes", "videos"))
left_out = import_module("made").left_out

NUM_FRAMES = 14
# Grey, as OpenCV turns the colours of a PNG into grey by another rounding than those of a video.
FRAMES = videos.moving_frames(NUM_FRAMES, channels=1)


def write_pictures(folder: Path, name: str, pictures: list[np.ndarray]) -> None:
    folder = folder / name
    folder.mkdir(parents=True, exist_ok=True)
    for number, picture in enumerate(pictures, 1):
        assert cv2.imwrite(str(folder / f"{name.replace('/', '-')}-{number:03d}.png"), picture)


@pytest.fixture
def walkers(tmp_path: Path) -> Path:
    """One walk as pictures (rgb), as a video (video), and its silhouettes."""
    write_pictures(tmp_path / "rgb", "001/nm-01/090", FRAMES)
    videos.encode(tmp_path / "video" / "001-nm-01-090.avi", FRAMES, "FFV1")
    write_pictures(tmp_path / "silh", "001/nm-01/090", videos.outlines(NUM_FRAMES))
    return tmp_path


def silhouette(root: Path, number: int) -> Path:
    return root / "silh/001/nm-01/090" / f"001-nm-01-090-{number:03d}.png"


def video_of(root: Path) -> Path:
    return root / "video/001-nm-01-090.avi"


def sequences_of(root: Path) -> tuple[SourceSequence, SourceSequence]:
    """The same walk, from pictures and from the video."""
    outlines, pictures = (
        Pictures.of(root / side / "001/nm-01/090", os.listdir(root / side / "001/nm-01/090"))
        for side in ("silh", "rgb")
    )
    from_pictures, from_video = (
        casia.sequence_of(frames, outlines) for frames in (pictures, Video(path=str(video_of(root))))
    )
    return from_pictures, from_video


def images_of(root: Path, recipe: FlowRecipe | None = None) -> tuple[MadeSequence, MadeSequence]:
    """What comes out of the pictures and what of the video."""
    from_pictures, from_video = sequences_of(root)
    return (recipe or FlowRecipe()).make(from_pictures), (recipe or FlowRecipe()).make(from_video)


def config_of(root: Path, frames: str, out: str = "w.zarr") -> PreprocessConfig:
    return PreprocessConfig(
        dataset="casia-b",
        folders=Folders(frames=root / frames, silhouettes=root / "silh"),
        out=root / out,
        recipe=FlowRecipe(),
        chunk_frames=4,
    )


def report_of(root: Path, out: str = "w.zarr") -> list[dict[str, object]]:
    return [json.loads(line) for line in report_location(root / out).path.read_text().splitlines()]


def test_a_lossless_video_gives_the_store_of_the_same_pictures(walkers: Path) -> None:
    for number, folder in ((2, "rgb"), (2, "video")):  # a second walk of twice as many frames
        frames = videos.moving_frames(16, channels=1)
        if folder == "rgb":
            write_pictures(walkers / folder, f"001/nm-{number:02d}/090", frames)
        else:
            videos.encode(walkers / folder / "deep" / f"001-nm-{number:02d}-090.mp4", frames, "FFV1")
    write_pictures(walkers / "silh", "001/nm-02/090", videos.outlines(16))
    for frames in ("rgb", "video"):
        run_preprocessing(config_of(walkers, frames, f"{frames}.zarr"))
    ours, theirs = (fakes.tree(walkers / f"{frames}.zarr") for frames in ("video", "rgb"))
    assert sum(name.startswith("frames/c") for name in theirs) > 0
    assert {name for name in theirs if ours[name] != theirs[name]} == {"zarr.json"}
    assert ours.keys() - theirs.keys() == {"frame_times/zarr.json", "frame_times/c/0"}
    assert not theirs.keys() - ours.keys()
    assert report_of(walkers, "rgb.zarr") == report_of(walkers, "video.zarr") == []


def test_colours_differ_by_the_rounding_of_grey_alone(walkers: Path) -> None:
    colours = videos.moving_frames(NUM_FRAMES)
    write_pictures(walkers / "rgb", "001/nm-01/090", colours)
    videos.encode(video_of(walkers), colours, "FFV1")
    wanted = frozenset(range(1, NUM_FRAMES + 1))
    from_pictures, from_video = (
        {frame.number: frame.gray for frame in read_frames(sequence.frames, wanted, [])}
        for sequence in sequences_of(walkers)
    )
    differences = [cv2.absdiff(from_pictures[number], from_video[number]) for number in wanted]
    assert max(difference.max() for difference in differences) <= 1


def test_the_store_says_that_its_frames_came_from_videos_and_who_decoded_them(walkers: Path) -> None:
    run_preprocessing(config_of(walkers, "rgb", "rgb.zarr"))
    run_preprocessing(config_of(walkers, "video", "video.zarr"))
    pictures, video = (open_store(walkers / f"{frames}.zarr") for frames in ("rgb", "video"))
    assert (pictures.attributes["frames_from"], video.attributes["frames_from"]) == ("pictures", "video")
    assert "ffmpeg" not in pictures.attributes["versions"]
    assert video.attributes["versions"]["ffmpeg"].startswith("avcodec ")
    assert summarise(video)["frames_from"] == "video"
    with pytest.raises(ParameterError, match=r"frames_from is 'pictures', but must be 'video'"):
        run_preprocessing(config_of(walkers, "rgb", "video.zarr"))

    (walkers / "mixed/001").mkdir(parents=True)
    (walkers / "mixed/001/nm-01").symlink_to(walkers / "rgb/001/nm-01")
    videos.encode(walkers / "mixed/001-nm-02-090.avi", FRAMES, "FFV1")
    write_pictures(walkers / "silh", "001/nm-02/090", videos.outlines(NUM_FRAMES))
    run_preprocessing(config_of(walkers, "mixed", "mixed.zarr"))
    assert open_store(walkers / "mixed.zarr").attributes["frames_from"] == "pictures and video"


def test_the_times_of_a_video_s_pictures_are_kept(walkers: Path) -> None:
    silhouette(walkers, 5).unlink()
    run_preprocessing(config_of(walkers, "video"))
    store = open_store(walkers / "w.zarr")
    numbers = [2, 3, 4, 7, 8, 9, 10, 11, 12, 13, 14]
    assert store.frame_numbers(0).tolist() == numbers
    times = store.frame_times(0)
    assert times is not None
    np.testing.assert_allclose(times, [(number - 1) / 25 for number in numbers], atol=1e-9)


def test_a_video_that_changed_since_is_noticed(walkers: Path) -> None:
    run_preprocessing(config_of(walkers, "video"))
    assert run_preprocessing(config_of(walkers, "video")).written.already_finished
    with video_of(walkers).open("ab") as file:
        file.write(b"x")
    with pytest.raises(AttenGaitError, match=r"was made from another input"):
        run_preprocessing(config_of(walkers, "video"))


@pytest.mark.parametrize("gap", ["skip", "bridge"])
def test_silhouettes_missing_in_the_middle_drop_the_same_frames_as_with_pictures(walkers: Path, gap: str) -> None:
    for number in (1, 5, 6):
        silhouette(walkers, number).unlink()
    pictures, video = images_of(walkers, FlowRecipe(gap=gap))
    np.testing.assert_array_equal(video.pictures, pictures.pictures)
    assert video.frame_numbers.tolist() == pictures.frame_numbers.tolist()
    assert left_out(video) == left_out(pictures) == ((Reason.NO_MATCH, (1, 5, 6), ()),)


def test_frames_after_the_last_silhouette_are_counted_as_with_pictures(walkers: Path) -> None:
    for number in (13, 14):
        silhouette(walkers, number).unlink()
    pictures, video = images_of(walkers)
    np.testing.assert_array_equal(video.pictures, pictures.pictures)
    assert left_out(video) == left_out(pictures) == ((Reason.NO_MATCH, (13, 14), ()),)


def test_silhouettes_of_every_second_frame_that_were_numbered_anew_are_noticed(walkers: Path) -> None:
    for number in range(1, 8):
        silhouette(walkers, 2 * number - 1).rename(silhouette(walkers, number))
    for number in range(8, 15):
        silhouette(walkers, number).unlink(missing_ok=True)
    pictures, video = images_of(walkers)
    assert left_out(video) == left_out(pictures) == ((Reason.SILHOUETTES_END, tuple(range(8, 15)), ()),)
    assert video.skipped[0].detail.startswith("the silhouettes end with number 7, and the frames with 14: if")


def test_silhouettes_beyond_the_video_s_end_have_no_matching_number(walkers: Path) -> None:
    videos.encode(video_of(walkers), FRAMES[:11], "FFV1")
    _, video = images_of(walkers)
    assert video.frame_numbers.tolist() == list(range(2, 12))
    assert left_out(video) == ((Reason.NO_MATCH, (12, 13, 14), ()),)


def test_a_silhouette_of_number_0_has_no_frame(walkers: Path) -> None:
    silhouette(walkers, 1).rename(silhouette(walkers, 0))
    _, video = images_of(walkers)
    assert left_out(video) == ((Reason.NO_MATCH, (0, 1), ()),)


def test_silhouettes_of_another_size_are_named(walkers: Path) -> None:
    cv2.imwrite(str(silhouette(walkers, 4)), np.full((50, 80), 255, np.uint8))
    pictures, video = images_of(walkers)
    np.testing.assert_array_equal(video.pictures, pictures.pictures)
    assert left_out(video) == ((Reason.WRONG_SIZE, (4,), (str(silhouette(walkers, 4)),)),)


def test_what_comes_before_a_break_is_used_and_the_rest_is_one_entry(walkers: Path) -> None:
    whole, _ = images_of(walkers)
    os.truncate(video_of(walkers), int(video_of(walkers).stat().st_size * 0.7))
    run_preprocessing(config_of(walkers, "video"))
    (entry,) = report_of(walkers)
    assert (entry["where"], entry["reason"], entry["files"]) == (
        "001/nm-01/090",
        Reason.BROKEN_VIDEO,
        [str(video_of(walkers))],
    )
    first_lost = entry["frames"][0]
    assert entry["frames"] == list(range(first_lost, NUM_FRAMES + 1))
    assert 8 <= first_lost <= 11
    assert entry["detail"].startswith("[ffv1]")
    store = open_store(walkers / "w.zarr")
    with store.reader() as reader:
        (clip,) = reader.read_clips(store.sequences.start, store.sequences.length)
    np.testing.assert_array_equal(clip, whole.pictures[: first_lost - 2])


def test_a_text_file_by_the_name_of_a_video_is_reported_and_the_others_are_used(walkers: Path) -> None:
    (walkers / "video/002-nm-01-090.avi").write_text("This is no video.\n" * 50)
    write_pictures(walkers / "silh", "002/nm-01/090", videos.outlines(NUM_FRAMES))
    summary = run_preprocessing(config_of(walkers, "video"))
    assert summary.written.num_sequences == 1
    broken, too_short = report_of(walkers)
    assert (broken["where"], broken["reason"]) == ("002/nm-01/090", "broken video")
    assert broken["frames"] == list(range(1, NUM_FRAMES + 1))
    assert too_short["reason"] == "too few pictures"
    assert "skipped, broken video: 14 frames in 1 sequence" in str(summary)


def test_a_folder_without_videos_is_refused(walkers: Path) -> None:
    (walkers / "empty").mkdir()
    with pytest.raises(AttenGaitError, match=r"holds no sequence .* no video named subject-walk-view\.avi"):
        run_preprocessing(config_of(walkers, "empty"))
    assert not (walkers / "w.zarr").exists()


def test_frames_are_read_in_order_with_what_is_wrong(walkers: Path) -> None:
    pictures, video = (sequence.frames for sequence in sequences_of(walkers))
    paths = {number: walkers / f"rgb/001/nm-01/090/001-nm-01-090-{number:03d}.png" for number in range(1, 8)}
    paths[2].unlink()
    paths[3].write_bytes(b"damaged")
    cv2.imwrite(str(paths[5]), np.zeros((9, 9), np.uint8))
    faults: list[Fault] = []
    assert isinstance(pictures, Pictures)
    pictures = Pictures.of(pictures.folder, [path.name for path in paths.values() if path.exists()])
    found = [(frame.number, frame.gray is not None) for frame in read_frames(pictures, {1, 2, 3, 4, 5, 9}, faults)]
    assert found == [(1, True), (3, False), (4, True), (5, False), (6, False), (7, False)]
    assert [fault[:3] for fault in faults] == [
        (Reason.UNREADABLE_PICTURE, 3, str(paths[3])),
        (Reason.WRONG_SIZE, 5, str(paths[5])),
    ]
    assert faults[1].detail == "a frame has 9 x 9 pixels, but must have 10 x 10 or more"

    found = [(frame.number, frame.gray is not None) for frame in read_frames(video, {2, 4}, faults)]
    assert found == [(1, False), (2, True), (3, False), (4, True), *((number, False) for number in range(5, 15))]
    assert len(faults) == 2


def test_the_benchmark_takes_videos_too(walkers: Path) -> None:
    report = benchmark_preprocess(walkers / "video", walkers / "silh", flows=["opencv"], repeats=1, stage_frames=5)
    (part,) = report["sizes"]
    stages = {row["name"]: row["ms_per_frame"] for row in part["stages"]["opencv"]}
    assert len(stages) == 4
    del stages["colour and crop"]  # the difference of two times: below 0 on a busy machine, now and then
    assert min(stages.values()) > 0
    video_of(walkers).write_bytes(b"none")
    with pytest.raises(AttenGaitError, match="no two frames in a row"):
        benchmark_preprocess(walkers / "video", walkers / "silh", flows=["opencv"], repeats=1)


def test_real_walkers_cut_from_a_real_video_equal_those_from_pictures(shared: Path, tmp_path: Path) -> None:
    """The square, whole, with one walker's box as silhouette: H.264 against PNGs of its frames."""
    (segment, *_) = json.loads((shared / "walkers" / "segments.json").read_text())
    first, num_frames = segment["first_frame"], 8
    path = shared / "walkers" / "plaza.avi"
    source, frames = cv2.VideoCapture(str(path)), []
    for _ in range(first + num_frames):
        frames.append(source.read()[1])
    x, y, width, height = segment["boxes"][0]
    outline = np.zeros(frames[0].shape[:2], np.uint8)
    outline[y : y + height, x : x + width] = 255
    grays = videos.grays(frames)
    for number in range(first + 1, first + num_frames + 1):
        for side, picture in (("rgb", grays[number - 1]), ("silh", outline)):
            (tmp_path / side).mkdir(exist_ok=True)
            assert cv2.imwrite(str(tmp_path / side / f"001-nm-01-090-{number:03d}.png"), picture)
    pictures, outlines = (Pictures.of(tmp_path / side, os.listdir(tmp_path / side)) for side in ("rgb", "silh"))
    from_pictures, from_video = (
        FlowRecipe().make(casia.sequence_of(source, outlines)) for source in (pictures, Video(path=str(path)))
    )
    assert len(from_video.pictures) == num_frames - 1
    np.testing.assert_array_equal(from_video.pictures, from_pictures.pictures)
