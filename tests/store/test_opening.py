"""Opening: one sentence for everything that may be wrong, and a summary of what is there."""

import json
import shutil
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import zarr

from attengait.errors import AttenGaitError
from attengait.store import open_store, summarise
from attengait.store.layout import work_path
from attengait.store.sequences import write_column
from attengait.store.workfolder import WorkFolder
from attengait.store.writer import write_store

fakes = import_module("store_fakes")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished store; to be read only."""
    path = tmp_path_factory.mktemp("opening") / "s.zarr"
    write_store(fakes.job_of(path, fakes.plan_of(codec="zstd")))
    return path


@pytest.fixture
def store(finished, tmp_path):
    """A copy to be damaged."""
    return Path(shutil.copytree(finished, tmp_path / "s.zarr"))


def edit_json(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_a_store_knows_its_layout_and_its_sequences(finished):
    store = open_store(str(finished))
    assert store.path == finished
    assert (store.frame_shape, store.chunk_frames, store.shard_frames, store.codec) == (fakes.SHAPE, 4, 36, "zstd")
    assert (len(store.sequences), store.num_frames) == (9, 87)
    assert store.sequences.name(3) == "002/nm-01/090"
    assert store.layout.num_frames == 3 * 36
    assert store.attributes["recipe"] == {"gap": "skip"}


def test_the_summary_is_json_and_counts_right(finished):
    summary = summarise(open_store(finished))
    assert json.loads(json.dumps(summary)) == summary
    wanted = {"subjects": 3, "sequences": 9, "frames": 87, "shortest": 2, "longest": 20, "views": {"090": 9}}
    assert {key: summary[key] for key in wanted} == wanted
    assert summary["walks"] == {"nm-01": 3, "nm-02": 2, "nm-03": 2, "nm-04": 2}
    assert summary["bytes"] == sum(len(content) for content in fakes.tree(finished).values())
    assert summary["unpacked_bytes"] == 87 * np.prod(fakes.SHAPE)


def test_what_is_not_there_or_not_a_store_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    zarr.create_group(tmp_path / "foreign.zarr", zarr_format=3, attributes={"format": "other"})
    zarr.create_array(tmp_path / "array.zarr", shape=(1,), dtype="uint8", zarr_format=3)
    zarr.create_group(tmp_path / "old.zarr", zarr_format=2)
    for name, sentence in {
        "missing": "does not exist",
        "file": "is a file, but a store is a folder",
        "folder": r"is not a store: it has no zarr\.json",
        "foreign.zarr": "is a Zarr group, but not an AttenGait store",
        "array.zarr": "is not a Zarr v3 group",
        "old.zarr": "is not a store",
    }.items():
        with pytest.raises(AttenGaitError, match=f"{name} {sentence}"):
            open_store(tmp_path / name)


def test_a_store_opens_from_within(finished, tmp_path, monkeypatch):
    monkeypatch.chdir(finished)
    assert len(open_store(".").sequences) == 9
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AttenGaitError, match=r"\. is not a store"):
        open_store(".")


def test_an_unfinished_store_says_how_far_it_is(tmp_path):
    work = WorkFolder(work_path(tmp_path / "s.zarr"))
    work.path.mkdir()
    work.write_plan(fakes.plan_of())
    with pytest.raises(
        AttenGaitError, match=r"s\.zarr is not finished \(0 of 3 shards\): run the command that began it again"
    ):
        open_store(tmp_path / "s.zarr")


def test_another_version_is_refused_with_both_versions(store):
    edit_json(store / "zarr.json", lambda content: content["attributes"].update(version=2))
    with pytest.raises(AttenGaitError, match="is a store of version 2, but this attengait reads version 1"):
        open_store(store)


def test_damaged_metadata_is_named(store):
    original = (store / "zarr.json").read_bytes()
    for content in (b"{", b"\xff", b"[]", b"{}"):
        (store / "zarr.json").write_bytes(content)
        with pytest.raises(AttenGaitError, match=r"s\.zarr"):
            open_store(store)
    (store / "zarr.json").write_bytes(original)
    (store / "frames" / "zarr.json").write_text("{")
    with pytest.raises(AttenGaitError, match=r"frames/zarr\.json is damaged: it is not JSON: Expecting property name"):
        open_store(store)
    (store / "frames" / "zarr.json").unlink()
    with pytest.raises(AttenGaitError, match="the array frames cannot be opened"):
        open_store(store)


def replace_frames(store, **options):
    shutil.rmtree(store / "frames")
    zarr.open_group(store, mode="r+").create_array("frames", **{"shape": (8, 6, 5, 3), "dtype": "uint8", **options})


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"dtype": "int16", "shards": (8, 6, 5, 3)},
            r"frames/zarr\.json: the codecs of the chunks are \['bytes', 'zstd'\], which is none of none, lz4, zstd",
        ),
        (
            {"shape": (8, 6), "shards": (8, 6)},
            r"frames/zarr\.json: shape is \[8, 6\], but must be 4 whole numbers from 1 on",
        ),
        ({"chunks": (4, 6, 5, 3)}, r"codecs\[0\]\.configuration\.chunk_shape is None, but must be 4 whole numbers"),
        ({"chunks": (4, 3, 5, 3), "shards": (8, 6, 5, 3), "compressors": None}, "chunk_shape.* is 3, but must be 6"),
        (
            {"shape": (9, 6, 5, 3), "chunks": (4, 6, 5, 3), "shards": (8, 6, 5, 3)},
            r"the codecs of the chunks are \['bytes', 'zstd'\], which is none of none, lz4, zstd",
        ),
        (
            {"shape": (9, 6, 5, 3), "chunks": (4, 6, 5, 3), "shards": (8, 6, 5, 3), "compressors": None},
            r"shape\[0\] is 9, but must be 8",
        ),
    ],
)
def test_frames_of_another_layout_are_refused(store, options, sentence):
    replace_frames(store, **options)
    with pytest.raises(AttenGaitError, match=sentence):
        open_store(store)


def test_a_damaged_column_is_named(store):
    column = store / "sequences" / "walk" / "c" / "0"
    data = bytearray(column.read_bytes())
    data[len(data) // 2] ^= 1
    column.write_bytes(data)
    with pytest.raises(AttenGaitError, match="the column sequences/walk cannot be read"):
        open_store(store)
    column.unlink()
    with pytest.raises(AttenGaitError, match="the column sequences/walk cannot be read: its values are missing"):
        open_store(store)
    shutil.rmtree(store / "sequences" / "walk")
    with pytest.raises(AttenGaitError, match="the column sequences/walk cannot be read"):
        open_store(store)


def test_columns_of_another_length_or_type_are_refused(store):
    group = zarr.open_group(store / "sequences", mode="r+")
    group.create_array("length", data=np.ones(9, np.int32), overwrite=True)
    with pytest.raises(
        AttenGaitError, match=r"sequences/length/zarr\.json: its data_type is 'int32', but must be int64"
    ):
        open_store(store)
    del group["length"]
    write_column(group, "length", np.ones(8, np.int64))
    with pytest.raises(AttenGaitError, match=r"the columns of sequences differ in length: .*'start': 9, 'length': 8"):
        open_store(store)


def test_a_store_of_one_sequence_keeps_its_columns_of_zeros(tmp_path):
    write_store(fakes.job_of(tmp_path / "s.zarr", fakes.plan_of([5])))
    assert open_store(tmp_path / "s.zarr").sequences.start.tolist() == [0]
