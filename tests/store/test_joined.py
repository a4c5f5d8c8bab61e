"""Several stores as one: whose names, which frames, and which stores cannot be joined."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_stores import make_store, zarr_frames

from attengait.errors import AttenGaitError, ParameterError
from attengait.store import Store, open_store
from attengait.store.joined import join_stores, store_name
from attengait.store.location import Location

COLOUR = {"modality": "flow", "encoding": "colour"}


def make(path: Path, **changes: Any) -> Store:
    made: Store = make_store(path, **({"attributes": COLOUR} | changes))
    return made


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> list[Store]:
    """Two uncompressed and one compressed, of different layouts."""
    folder = tmp_path_factory.mktemp("joined")
    return [
        make(folder / "own.zarr", lengths=(20, 17, 31), shard_frames=32),
        make(folder / "casia-b.zarr", seed=1),
        make(folder / "lab", codec="lz4", lengths=(18, 18, 40, 22), seed=2),
    ]


def test_sequences_follow_the_names_of_their_stores_and_subjects_are_called_after_them(stores: list[Store]) -> None:
    joined = join_stores(stores)
    assert [store_name(store.location) for store in joined.stores] == ["casia-b", "lab", "own"]
    assert joined.frame_shape == (6, 5, 3)
    names = [joined.sequences.name(i) for i in range(len(joined.sequences))]
    assert names[0] == "casia-b:001/nm-01/090"
    assert names[10:12] == ["lab:001/nm-01/090", "lab:001/nm-02/090"]
    assert names[-1] == "own:002/nm-01/090"
    assert len(names) == len(set(names)) == 17


def test_the_order_in_which_stores_are_given_says_nothing(stores: list[Store]) -> None:
    one, other = join_stores(stores), join_stores(stores[::-1])
    for column in ("subject", "walk", "view", "start", "length", "crc32c"):
        assert np.array_equal(getattr(one.sequences, column), getattr(other.sequences, column))


def test_each_sequence_is_read_from_its_own_store(stores: list[Store]) -> None:
    joined = join_stores(stores)
    sequences = joined.sequences
    frames = np.concatenate([zarr_frames(store) for store in joined.stores])
    order = np.random.default_rng(0).permutation(len(sequences))
    with joined.reader() as reader:
        clips = reader.read_clips(sequences.start[order], sequences.length[order])
    for i, clip in zip(order.tolist(), clips, strict=True):
        start, length = int(sequences.start[i]), int(sequences.length[i])
        assert np.array_equal(clip, frames[start : start + length])
    # Equal contents would hide a mistake.
    assert len({clip[-1].tobytes() for clip in clips}) == len(clips)


def test_joining_leaves_the_stores_as_they_are(stores: list[Store]) -> None:
    before = stores[0].sequences.start.copy()
    join_stores(stores)
    assert np.array_equal(stores[0].sequences.start, before)
    assert stores[0].sequences.subject.tolist() == ["001", "001", "002"]


@pytest.mark.parametrize(
    ("where", "name"),
    [
        ("casia-b.zarr", "casia-b"),
        ("a/b/own", "own"),
        ("a/b.zarr/", "b"),
        ("s3://bucket/gait/casia-b.zarr/", "casia-b"),
        ("https://host/own.zarr?token=1", "own"),
    ],
)
def test_a_store_is_called_by_the_last_part_of_its_place(where: str, name: str) -> None:
    assert store_name(Location.parse(where)) == name


def test_the_folder_one_is_in_has_a_name(stores: list[Store], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(stores[0].path)
    assert store_name(Location.parse(".")) == "own"
    with pytest.raises(AttenGaitError, match=r"\. is given twice|own\.zarr is given twice"):
        join_stores([stores[0], open_store(".")])


def test_a_store_is_joined_once(stores: list[Store], tmp_path: Path) -> None:
    with pytest.raises(AttenGaitError, match=r"own\.zarr is given twice: name each store once$"):
        join_stores([*stores, stores[0]])
    (tmp_path / "link.zarr").symlink_to(stores[0].path)
    with pytest.raises(AttenGaitError, match=r"is given twice"):
        join_stores([stores[0], open_store(tmp_path / "link.zarr")])


def test_two_stores_of_one_name_are_refused(stores: list[Store], tmp_path: Path) -> None:
    with pytest.raises(AttenGaitError, match=r"own\.zarr and .* have the same name, 'own', .*: rename one"):
        join_stores([stores[0], make(tmp_path / "own")])


@pytest.mark.parametrize("name", ["a,b.zarr", "a:b.zarr", ".zarr"])
def test_a_name_that_would_not_part_subjects_is_refused(stores: list[Store], tmp_path: Path, name: str) -> None:
    with pytest.raises(AttenGaitError, match=r"cannot be joined .* must not be empty or have a comma or a colon"):
        join_stores([stores[0], make(tmp_path / name)])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"frame_shape": (6, 5, 2)}, r"frames of 6 x 5 x 3, .* but .*other\.zarr holds frames of 6 x 5 x 2"),
        ({"frame_shape": (6, 6, 3)}, r"holds frames of 6 x 6 x 3"),
        ({"attributes": {"modality": "silhouette", "encoding": "gray"}}, r"flow, encoding colour, but .* silhouette"),
        ({"attributes": COLOUR | {"encoding_steps_per_px": 8}}, r"but .* encoding steps per px 8"),
        ({"attributes": {}}, r"of unknown modality and encoding: a model is trained on one kind$"),
    ],
)
def test_pictures_of_different_kinds_are_refused(
    stores: list[Store], tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(AttenGaitError, match=sentence):
        join_stores([stores[0], make(tmp_path / "other.zarr", **changes)])


def test_two_stores_of_one_data_set_are_refused(stores: list[Store], tmp_path: Path) -> None:
    # Each person would be two classes.
    shutil.copytree(stores[0].path, tmp_path / "copy.zarr")
    with pytest.raises(AttenGaitError, match=r"copy\.zarr and .*own\.zarr have the same content, .*: leave out one"):
        join_stores([*stores, open_store(tmp_path / "copy.zarr")])
    one, other, third = (
        make(tmp_path / f"{name}.zarr", seed=seed, attributes=COLOUR | {"source": {"sha256": source}})
        for seed, (name, source) in enumerate([("one", "a"), ("two", "b"), ("wider", "a")], 5)
    )
    assert len(join_stores([one, other]).stores) == 2
    with pytest.raises(AttenGaitError, match=r"one\.zarr and .*wider\.zarr were made from the same files, so each"):
        join_stores([third, other, one])


def test_no_store_is_refused() -> None:
    with pytest.raises(ParameterError, match="at least one"):
        join_stores([])
