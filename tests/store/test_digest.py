"""Names, labels and attributes of a store are covered by its digest, which no single fault takes away."""

import hashlib
import json
import shutil
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import zarr

from attengait.cli import data
from attengait.errors import AttenGaitError
from attengait.store import open_store, summarise
from attengait.store.layout import CODECS
from attengait.store.verify import verify
from attengait.store.writer import write_store

fakes = import_module("store_fakes")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished store of each codec; to be read only."""
    folder = tmp_path_factory.mktemp("digest")
    for codec in CODECS:
        write_store(fakes.job_of(folder / f"{codec}.zarr", fakes.plan_of(codec=codec)))
    return folder


@pytest.fixture
def store(finished, tmp_path):
    """A copy to be damaged."""
    return Path(shutil.copytree(finished / "none.zarr", tmp_path / "s.zarr"))


def edit_root(store, change):
    document = json.loads((store / "zarr.json").read_bytes())
    change(document["attributes"])
    (store / "zarr.json").write_text(json.dumps(document))


def test_anybody_can_compute_the_digest(store):
    """By the words of docs/store.md alone, with plain zarr-python."""
    group = zarr.open_group(store, mode="r")
    attributes = dict(group.attrs)
    said = attributes["digest"].pop("sha256")
    column = group["frame_numbers"][:]
    assert attributes["digest"] == {"frame_numbers": hashlib.sha256(column.astype("<i4").tobytes()).hexdigest()}
    frames = group["frames"]
    lines = [attributes, [3, frames.shards[0], frames.chunks[0], list(frames.shape[1:]), "none"]]
    kinds = {"subject": "string", "walk": "string", "view": "string", "start": "int64", "length": "int64"}
    for name, kind in sorted({**kinds, "crc32c": "uint32"}.items()):
        lines.append([name, kind, group[f"sequences/{name}"][:].tolist()])
    text = "".join(json.dumps(line, sort_keys=True, separators=(",", ":")) + "\n" for line in lines)
    assert said == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize(
    "change",
    [
        lambda attributes: attributes.update(modality="rgb"),
        lambda attributes: attributes.update(dataset="\x1b]0;owned\x07"),
        lambda attributes: attributes.update(encoding_steps_per_px=8),
        lambda attributes: attributes.pop("source"),
        lambda attributes: attributes["recipe"].update(gap="bridge"),
        lambda attributes: attributes["digest"].update(sha256="0" * 64),
        lambda attributes: attributes["digest"].update(frame_numbers="0" * 64),
        lambda attributes: attributes["digest"].pop("frame_numbers"),
        lambda attributes: attributes.update(digest=None),
        lambda attributes: attributes.update(digest={}),
    ],
)
def test_a_changed_attribute_is_refused(store, change):
    edit_root(store, change)
    with pytest.raises(
        AttenGaitError, match=r"s\.zarr was changed after it was made.* do not fit the digest in .*json"
    ):
        open_store(store)


@pytest.mark.parametrize(
    ("column", "change"),
    [
        ("subject", lambda values: values[::-1].copy()),
        ("view", lambda values: np.array(["000"] * len(values), values.dtype)),
        ("walk", lambda values: np.array(["../.."] * len(values), values.dtype)),
        ("start", lambda values: values[::-1].copy()),
        ("length", lambda values: values - (np.arange(len(values)) == 0)),
        ("crc32c", lambda values: values + 1),
    ],
)
def test_a_changed_column_with_right_checksums_is_refused(store, column, change):
    array = zarr.open_array(store / "sequences" / column, mode="r+")
    array[:] = change(array[:])
    for look in (open_store, verify):
        with pytest.raises(AttenGaitError, match=r"s\.zarr was changed after it was made"):
            look(store)


def test_a_layout_with_more_or_fewer_shards_is_refused(store):
    place = store / "frames" / "zarr.json"
    before = json.loads(place.read_bytes())
    for frames in (72, 144):
        place.write_text(json.dumps(before | {"shape": [frames, *before["shape"][1:]]}))
        with pytest.raises(AttenGaitError, match="was changed after it was made"):
            open_store(store)


def test_a_store_does_not_lose_its_digest_by_one_fault(store):
    edit_root(store, lambda attributes: attributes.update(digesu=attributes.pop("digest")))
    with pytest.raises(AttenGaitError, match=r"s\.zarr/zarr\.json is damaged: it lacks the digest"):
        open_store(store)
    edit_root(store, lambda attributes: attributes.update(digest=attributes.pop("digesu")))
    assert len(open_store(store)) == 9
    document = json.loads((store / "frames" / "zarr.json").read_bytes()) | {"attributes": {}}
    (store / "frames" / "zarr.json").write_text(json.dumps(document))
    with pytest.raises(AttenGaitError, match=r"frames/zarr\.json is damaged: it lacks the digest"):
        open_store(store)


def test_a_store_without_a_digest_says_so(store, capsys):
    before, identity = summarise(open_store(store)), open_store(store).content_sha256
    data.verify(str(store))
    data.info(str(store))
    assert "no checksum" not in capsys.readouterr().out
    fakes.forget_digest(store)
    assert summarise(open_store(store)) == before | {
        "digest": None,
        "bytes": sum(file.stat().st_size for file in store.rglob("*") if file.is_file()),
    }
    assert open_store(store).content_sha256 == identity
    for command in (data.verify, data.info):
        command(str(store))
        assert "names, labels and attributes of this store have no checksum" in capsys.readouterr().out


def everything(store):
    """All that a store says, as values that can be compared."""
    opened = open_store(store)
    frames = [opened[i].tobytes() for i in range(len(opened))]
    numbers = [opened.frame_numbers(i).tolist() for i in range(len(opened))]
    columns = {name: column.tolist() for name, column in opened.sequences.columns.items()}
    return opened.attributes, opened.layout, columns, frames, numbers


@pytest.mark.parametrize("codec", CODECS)
def test_a_flipped_bit_anywhere_gives_right_data_or_an_error_that_names_the_store(finished, tmp_path, codec):
    """Some bits of each file here; all bytes of the metadata were tried once (docs/store.md)."""
    store = Path(shutil.copytree(finished / f"{codec}.zarr", tmp_path / "s.zarr"))
    right, random, num_refused = everything(store), np.random.default_rng(0), 0
    files = sorted(file for file in store.rglob("*") if file.is_file())
    for file in files:
        before, said = file.read_bytes(), []
        for at in random.integers(0, len(before), 12).tolist():
            damaged = bytearray(before)
            damaged[at] ^= 1 << int(random.integers(8))
            file.write_bytes(damaged)
            try:
                found = everything(store)
            except AttenGaitError as error:
                said.append(str(error))
            else:
                assert found == right, (file, at)
        file.write_bytes(before)
        assert all("s.zarr" in sentence for sentence in said)
        num_refused += len(said)
    assert num_refused > 6 * len(files)
