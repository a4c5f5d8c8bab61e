"""Damage is found, and named."""

import shutil
from importlib import import_module

import google_crc32c
import numpy as np
import pytest
import zarr

from attengait.errors import AttenGaitError
from attengait.store import open_store
from attengait.store.layout import CODECS, read_shard_index, shard_path
from attengait.store.verify import verify
from attengait.store.writer import write_store

fakes, Heard = import_module("store_fakes"), import_module("heard").Heard


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished store of each codec; to be read only."""
    folder = tmp_path_factory.mktemp("verify")
    for codec in CODECS:
        write_store(fakes.job_of(folder / f"{codec}.zarr", fakes.plan_of(codec=codec)))
    return folder


@pytest.fixture(params=CODECS)
def store(request, finished, tmp_path):
    """A copy to be damaged, of each codec."""
    return open_store(shutil.copytree(finished / f"{request.param}.zarr", tmp_path / f"{request.param}.zarr"))


def flip(path, at, bits=1):
    data = bytearray(path.read_bytes())
    data[at] ^= bits
    path.write_bytes(data)


def found(store):
    return [str(finding) for finding in verify(store.path)]


def names_in_shard(store, shard):
    members = np.flatnonzero(store.sequences.start // store.shard_frames == shard)
    return [store.sequences.name(i) for i in members]


def test_a_sound_store_has_no_findings_and_every_shard_is_read(store):
    heard = Heard()
    assert verify(store.path, progress=heard) == []
    assert heard.counts == [(1, 3), (2, 3), (3, 3)]


def test_a_flipped_bit_in_any_chunk_is_found_with_its_sequences(store):
    """Every chunk of a shard in turn; a raw shard's tail holds nothing."""
    path = shard_path(store.path, 0)
    original = path.read_bytes()
    last_frame = int(store.sequences.length[store.sequences.start < store.shard_frames].sum())
    for chunk, (offset, size) in enumerate(read_shard_index(path, store.layout).tolist()):
        flip(path, offset + size // 2, 4)
        frames = range(chunk * 4, chunk * 4 + 4)
        spans = zip(store.sequences.start.tolist(), store.sequences.length.tolist(), strict=True)
        touched = [
            store.sequences.name(i)
            for i, (start, length) in enumerate(spans)
            if set(frames) & set(range(start, start + length))
        ]
        findings = found(store)
        if store.codec == "none":
            frame = frames[2]  # the middle byte is the first of the third frame
            wanted = [store.sequences.name(int(np.searchsorted(store.sequences.start, frame, side="right")) - 1)]
            wanted = wanted if frame < last_frame else []
            assert findings == [f"{name}: its frames in frames/c/0/0/0/0 fail their checksum" for name in wanted]
        else:
            assert findings[0].startswith(f"frames/c/0/0/0/0, chunk {chunk}: cannot be decoded: ")
            assert findings[1:] == [f"{name}: lies in a damaged chunk" for name in touched]
        path.write_bytes(original)


def test_a_damaged_index_is_found_with_all_that_the_shard_holds(store):
    path = shard_path(store.path, 1)
    for position in (-1, -10, -16 * store.layout.chunks_per_shard):
        flip(path, position)
        (finding,) = found(store)
        assert finding.startswith("frames/c/1/0/0/0: truncated or damaged, its index fails its checksum; it holds ")
        assert finding.endswith(", ".join(names_in_shard(store, 1)))
        flip(path, position)


@pytest.mark.parametrize("cut_bytes", [1, 50, 10_000])
def test_a_truncated_shard_is_found(store, cut_bytes):
    path = shard_path(store.path, 2)
    path.write_bytes(path.read_bytes()[:-cut_bytes])
    (finding,) = found(store)
    assert finding.startswith("frames/c/2/0/0/0: truncated ")


def test_a_missing_shard_is_found_though_zarr_takes_it_for_zeros(store):
    shard_path(store.path, 1).unlink()
    assert not zarr.open_array(store.path / "frames", mode="r")[36:72].any()
    (finding,) = found(store)
    assert finding.startswith("frames/c/1/0/0/0: missing; it holds ")


def write_index(path, index):
    data = path.read_bytes()[: -16 * len(index) - 4]
    table = np.ascontiguousarray(index, "<u8").tobytes()
    path.write_bytes(data + table + google_crc32c.value(table).to_bytes(4, "little"))


def test_a_chunk_left_out_of_a_sound_index_is_found(store):
    path = shard_path(store.path, 0)
    index = read_shard_index(path, store.layout).copy()
    index[0] = 2**64 - 1
    write_index(path, index)
    assert found(store) == [
        "frames/c/0/0/0/0, chunk 0: is absent",
        f"{store.sequences.name(0)}: lies in a damaged chunk",
    ]


def test_an_index_that_points_elsewhere_is_found(store):
    path = shard_path(store.path, 0)
    index = read_shard_index(path, store.layout).copy()
    index[3] = (2**63, 2**63)
    write_index(path, index)
    (finding,) = found(store)
    assert "frames/c/0/0/0/0: its index points outside the file" in finding


def test_chunks_that_changed_places_are_found(store):
    path = shard_path(store.path, 0)
    index = read_shard_index(path, store.layout).copy()
    index[[1, 2]] = index[[2, 1]]
    write_index(path, index)
    assert found(store) == ["001/nm-01/090: its frames in frames/c/0/0/0/0 fail their checksum",
                            "001/nm-03/090: its frames in frames/c/0/0/0/0 fail their checksum"]  # fmt: skip


def write_column(store, name, index, value):
    array = zarr.open_array(store.path / "sequences" / name, mode="r+")
    array[index] = value


@pytest.mark.parametrize(
    ("column", "index", "value", "sentence"),
    [
        ("start", 0, -1, "001/nm-01/090: start -1 with length 6 does not lie within one shard"),
        ("start", 8, 10**12, "003/nm-02/090: start 1000000000000 with length 7 does not lie within one shard"),
        ("start", 3, 33, "002/nm-01/090: start 33 with length 5 does not lie within one shard"),
        ("length", 3, 0, "002/nm-01/090: start 26 with length 0 does not lie within one shard"),
        ("length", 2, 2**62, "001/nm-04/090: start 18 with length 4611686018427387904 does not lie within one shard"),
        ("length", 0, 7, "001/nm-03/090: its frames 6 to 17 overlap the sequence before it, or come before it"),
        ("walk", 3, "nm-09", None),
        ("walk", 1, "nm-01", "001/nm-01/090: occurs twice"),
        ("crc32c", 1, 0, "001/nm-03/090: its frames in frames/c/0/0/0/0 fail their checksum"),
    ],
)
def test_every_record_is_checked_also_without_a_digest(store, column, index, value, sentence):
    write_column(store, column, index, value)
    with pytest.raises(AttenGaitError, match=r"was changed after it was made, or is damaged: .* do not fit the digest"):
        verify(store.path)
    fakes.forget_digest(store.path)
    findings = found(store)
    if sentence is None:
        assert findings == []
    else:
        assert sentence in findings


def test_a_damaged_column_is_an_error_that_names_it(store):
    flip(store.path / "sequences" / "crc32c" / "c" / "0", 10)
    with pytest.raises(AttenGaitError, match="the column sequences/crc32c cannot be read"):
        verify(store.path)
