"""CASIA-B's silhouettes as its owners pack them: read in place, and never more than an archive may give."""

import io
import os
import shutil
import subprocess
import tarfile
import zipfile
from importlib import import_module
from pathlib import Path

import cv2
import numpy as np
import pytest
from walks import write_walk

from attengait.datasets import Scan, archives
from attengait.pipelines.preprocess.run import preprocess
from attengait.preprocessing.executors import LocalProcesses
from attengait.preprocessing.silhouette import SilhouetteRecipe
from attengait.store import open_store
from attengait.store.skipped import NothingMadeError

casia = import_module("casia")


def pack(folder: Path, archive: Path, *, within: str = "") -> Path:
    """Pack a folder under its own name, as `tar -cf` or `zip -r` beside it do, in the archive's folder `within`."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    names = [within + str(path.relative_to(folder.parent)) for path in files]
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w") as packed:
            for path, name in zip(files, names, strict=True):
                packed.write(path, name)
        return archive
    with tarfile.open(archive, "w" if archive.suffix == ".tar" else "w:gz") as tar:
        for path, name in zip(files, names, strict=True):
            tar.add(path, name)
    return archive


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """Two subjects with two walks each, unpacked."""
    for seed, (subject, walk) in enumerate((s, w) for s in ("001", "113") for w in ("bg-01", "nm-01")):
        write_walk(tmp_path / "plain", subject, walk, 7, seed)
    return tmp_path / "plain/silh"


def said(result: Scan) -> list[tuple[str, str, str]]:
    return [(str(each.reason), os.path.basename(each.where), each.detail) for each in result.skipped]


def store_of(silhouettes: Path, out: Path, workers: int = 1) -> list[np.ndarray]:
    executor = LocalProcesses(num_workers=workers)
    summary = preprocess("casia-b", out, silhouettes=silhouettes, recipe=SilhouetteRecipe(), executor=executor)
    return list(open_store(summary))


def pack_subjects(plain: Path, packed: Path, suffix: str, within: str) -> Path:
    packed.mkdir()
    for subject in ("001", "113"):
        pack(plain / subject, packed / f"{subject}{suffix}", within=within)
    return packed


@pytest.mark.parametrize("suffix", [".tar.gz", ".tgz", ".tar", ".zip"])
@pytest.mark.parametrize("within", ["", "113/", "./silhouettes/"])
def test_a_packed_set_is_found_and_read_as_the_unpacked_one(
    plain: Path, tmp_path: Path, suffix: str, within: str
) -> None:
    packed = pack_subjects(plain, tmp_path / "packed", suffix, within)
    here, there = casia.find(None, plain), casia.find(None, packed)
    assert [each.name for each in there.sequences] == [each.name for each in here.sequences]
    assert len(there.sequences) == 4
    assert there.content_digest == here.content_digest
    assert there.skipped == ()
    for mine, other in zip(here.sequences, there.sequences, strict=True):
        np.testing.assert_array_equal(SilhouetteRecipe().make(other).pictures, SilhouetteRecipe().make(mine).pictures)


def test_packed_sets_give_the_store_of_the_unpacked_one(plain: Path, tmp_path: Path) -> None:
    mine = store_of(plain, tmp_path / "plain.zarr")
    for i, (suffix, within) in enumerate(((".tar.gz", "113/"), (".tar", ""), (".zip", "./silhouettes/"))):
        packed = pack_subjects(plain, tmp_path / f"packed {i}", suffix, within)
        other = store_of(packed, tmp_path / f"{i}.zarr", workers=2)
        assert len(mine) == len(other) == 4
        assert all(np.array_equal(*pair) for pair in zip(mine, other, strict=True))
        # Nothing was unpacked.
        assert sorted(path.name for path in packed.iterdir()) == [f"001{suffix}", f"113{suffix}"]


def test_unpacked_sequences_win_and_are_counted(plain: Path) -> None:
    pack(plain / "001", plain / "001.tar.gz")
    pack(plain / "113", plain / "113.tar.gz")
    shutil.rmtree(plain / "113")
    shutil.rmtree(plain / "001/nm-01")
    (plain / "001/bg-01/090/001-bg-01-090-007.png").unlink()
    result = casia.find(None, plain)
    kinds = {each.name: type(each.silhouettes).__name__ for each in result.sequences}
    assert kinds == {
        "001/bg-01/090": "Pictures",
        **dict.fromkeys(("001/nm-01/090", "113/bg-01/090", "113/nm-01/090"), "PackedPictures"),
    }
    ((reason, where, detail),) = said(result)
    assert (reason, where) == ("sequence twice", "001.tar.gz")
    assert detail.startswith("1 of its 2 sequences are used from elsewhere: 001/bg-01/090 from ")
    assert detail.endswith("; 1 have fewer pictures there, such as 001/bg-01/090")


def test_the_faults_of_subject_005_are_left_out_by_name(tmp_path: Path) -> None:
    views = [f"{view:03d}" for view in range(0, 181, 18)]
    for view in views:
        write_walk(tmp_path, "005", "bg-01", 6, 1)
        if view != "090":
            folder = tmp_path / "silh/005/bg-01" / view
            folder.mkdir()
            for path in (tmp_path / "silh/005/bg-01/090").iterdir():
                shutil.copy(path, folder / path.name.replace("-090-", f"-{view}-"))
    for view in ("000", "144", "162"):
        for path in (tmp_path / "silh/005/bg-01" / view).iterdir():
            cv2.imwrite(str(path), np.zeros((48, 80), np.uint8))
    (tmp_path / "silh/005/bg-02/090").mkdir(parents=True)  # a sequence with none at all
    (tmp_path / "packed").mkdir()
    # As the owners pack: with the folders, of which one is empty.
    subprocess.run(["tar", "-czf", tmp_path / "packed/005.tar.gz", "-C", tmp_path / "silh", "005"], check=True)
    for root, name in ((tmp_path / "packed", "p.zarr"), (tmp_path / "silh", "u.zarr")):
        executor = LocalProcesses(num_workers=1)
        made = preprocess("casia-b", tmp_path / name, silhouettes=root, recipe=SilhouetteRecipe(), executor=executor)
        store = open_store(made)
        assert store.sequences.view.tolist() == [view for view in views if view not in ("000", "144", "162")]
        counts = {str(reason): str(count) for reason, count in made.skipped.items()}
        assert counts == {"silhouette empty": "18 frames in 3 sequences", "too few pictures": "3"}


def test_no_path_outside_no_link_and_no_device_is_taken(plain: Path, tmp_path: Path) -> None:
    archive = pack(plain / "001", tmp_path / "p.tar")
    secret = (plain / "113/nm-01/090/113-nm-01-090-001.png").read_bytes()
    with tarfile.open(archive, "a") as tar:
        for name in ("../002/nm-01/090/002-nm-01-090-001.png", "/002/nm-01/090/002-nm-01-090-001.png"):
            info = tarfile.TarInfo(name)
            info.size = len(secret)
            tar.addfile(info, io.BytesIO(secret))
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE):
            info = tarfile.TarInfo("002/nm-01/090/002-nm-01-090-002.png")
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
    (tmp_path / "root").mkdir()
    archive.rename(tmp_path / "root/001.tar")
    with zipfile.ZipFile(tmp_path / "root/002.zip", "w") as packed:
        packed.writestr("a/../../002/nm-01/090/002-nm-01-090-001.png", secret)
        info = zipfile.ZipInfo("002/nm-01/090/002-nm-01-090-001.png")
        info.external_attr = 0o120777 << 16
        packed.writestr(info, "/etc/passwd")
        packed.writestr("003.tar.gz", b"x")
    result = casia.find(None, tmp_path / "root")
    assert [each.name for each in result.sequences] == ["001/bg-01/090", "001/nm-01/090"]
    reasons = [reason for reason, _, _ in said(result)]
    assert reasons == ["refused file of an archive"] * 7 + ["packed archive", "foreign file"]
    assert {detail for _, _, detail in said(result)[:7]} == {
        "its name leads out of the archive's folder",
        "it is a link or a device",
    }


def test_an_archive_is_bounded(plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "root"
    root.mkdir()
    pack(plain / "113", root / "113.zip")
    pack(plain / "001", root / "001.tar.gz")
    bomb = tarfile.TarInfo("002/nm-01/090/002-nm-01-090-001.png")
    bomb.size = 3 << 20
    with tarfile.open(root / "002.tar.gz", "w:gz") as tar:
        tar.addfile(bomb, io.BytesIO(bytes(bomb.size)))
    with zipfile.ZipFile(root / "003.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("003/nm-01/090/003-nm-01-090-001.png", bytes(3 << 20))
    monkeypatch.setattr(archives, "MAX_BYTES", 1 << 20)
    result = casia.find(None, root)
    assert {each.subject for each in result.sequences} == {"001", "113"}
    assert [detail for _, _, detail in said(result)] == [
        "it unpacks to more than 1,048,576 bytes: unpack it to a disk",
        "it unpacks to more than 1,048,576 bytes",
        "it holds no picture laid out as " + import_module("attengait.datasets.casia_b").LAYOUT,
    ]
    monkeypatch.setattr(archives, "MAX_FILES", 13)
    found = casia.find(None, plain.parent / "silh")
    assert len(found.sequences) == 4
    (root / "002.tar.gz").unlink()
    (root / "113.zip").unlink()
    pack(plain, root / "all.zip")
    with pytest.raises(Exception, match="holds no sequence") as error:
        casia.find(None, root)
    details = [each.detail for each in error.value.skipped]  # type: ignore[attr-defined]
    assert details.count("it holds more than 13 files: unpack it to a disk") == 2


def test_an_archive_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for name in ("001/a", "002.tar.gz", "003.zip", "001.tar.gz", "001.rar", "005.rar", "001/nm-02.tgz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)  # 001.rar was unpacked
        (tmp_path / name).write_bytes(b"x")
    view = tmp_path / "004/nm-01/090"
    view.mkdir(parents=True)
    (view / "004-nm-01-090.tar").write_bytes(b"x")
    with pytest.raises(NothingMadeError) as error:
        casia.find(None, tmp_path)
    assert [(str(each.reason), each.where.removeprefix(f"{tmp_path}/")) for each in error.value.skipped] == [
        ("foreign file", "001"),
        ("packed archive", "005.rar"),
        ("unreadable file", "001.tar.gz"),
        ("unreadable file", "001/nm-02.tgz"),
        ("unreadable file", "002.tar.gz"),
        ("unreadable file", "003.zip"),
        ("unreadable file", "004/nm-01/090/004-nm-01-090.tar"),
    ]


def test_an_archive_beside_pictures_is_read_and_its_other_files_are_counted(plain: Path, tmp_path: Path) -> None:
    for name in ("113/nm-01/090/a.tif", "113/nm-01/b.png", "113/c.txt"):
        (plain / name).write_bytes(b"x")
    pack(plain / "113", plain / "001/nm-01/090/more.zip")
    shutil.rmtree(plain / "113")
    (plain / "001/nm-01/090/part.7z").write_bytes(b"x")
    result = casia.find(None, plain)
    assert [sequence.subject for sequence in result.sequences] == ["001", "001", "113", "113"]
    counted = [(reason, where, detail.partition(" are ")[0]) for reason, where, detail in said(result)]
    assert counted == [
        ("packed archive", "part.7z", "unpack it, or remove it"),
        ("foreign pictures", "more.zip", "1 pictures in it"),
        ("foreign file", "more.zip", "2 files in it"),
    ]


def test_damage_is_named_and_stops_nothing(plain: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    pack(plain / "001", root / "001.tar.gz")
    whole = (root / "001.tar.gz").read_bytes()
    (root / "001.tar.gz").write_bytes(whole[: len(whole) // 2])
    pack(plain / "113", root / "113.zip")
    with zipfile.ZipFile(root / "113.zip") as packed:
        info = packed.infolist()[2]
    damaged = bytearray((root / "113.zip").read_bytes())
    damaged[info.header_offset + 60 + len(info.filename)] ^= 255
    (root / "113.zip").write_bytes(damaged)
    result = casia.find(None, root)
    ((reason, where, detail),) = said(result)
    assert (reason, where) == ("unreadable file", "001.tar.gz")
    assert detail.startswith("the archive is damaged: ")
    first, second = SilhouetteRecipe().make(result.sequences[0]), SilhouetteRecipe().make(result.sequences[1])
    assert (len(first.pictures), len(second.pictures)) == (6, 7)
    ((fault),) = first.skipped
    assert (str(fault.reason), fault.frames) == ("unreadable picture", (3,))
    assert "the archive is damaged: Bad CRC-32" in fault.detail


def test_a_tar_that_stops_before_its_end_loses_no_sequence_in_silence(plain: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    whole = pack(plain / "001", tmp_path / "whole.tar").read_bytes()
    with tarfile.open(tmp_path / "whole.tar") as tar:
        middle = tar.getmembers()[7].offset
    other_checksum = bytearray(whole)
    other_checksum[middle + 150] ^= 255
    pack(plain / "113", root / "113.tar")
    for content, said_of_it in (
        (bytes(other_checksum), "comes neither a file nor the tar's end"),
        (whole[:middle], "comes neither a file nor the tar's end"),
        (whole[: middle + 100], "comes neither a file nor the tar's end"),
        (whole + pack(plain / "113", tmp_path / "113.tar").read_bytes(), "something follows, such as another tar"),
    ):
        (root / "001.tar").write_bytes(content)
        result = casia.find(None, root)
        assert {each.subject for each in result.sequences} == {"113"}
        ((reason, where, detail),) = said(result)
        assert (reason, where) == ("unreadable file", "001.tar")
        assert said_of_it in detail


def test_a_refused_file_of_a_zip_hides_no_sound_one_of_its_name(plain: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    archive = pack(plain / "001", root / "001.zip")
    link = zipfile.ZipInfo("001/nm-01/090/001-nm-01-090-003.png")
    link.external_attr = 0o120777 << 16
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(archive, "a") as packed:
        packed.writestr(link, "/etc/passwd")
    result = casia.find(None, root)
    assert [reason for reason, _, _ in said(result)] == ["refused file of an archive"]
    made = SilhouetteRecipe().make(result.sequences[1])
    assert (len(made.pictures), made.skipped) == (7, ())


def test_an_archive_that_changed_or_went_stops_the_run(plain: Path, tmp_path: Path) -> None:
    from attengait.datasets.inputs import InputError, check_unchanged

    root = tmp_path / "root"
    root.mkdir()
    archive = pack(plain / "001", root / "001.tar.gz")
    sequence = casia.find(None, root).sequences[0]
    check_unchanged(sequence)
    os.utime(archive, ns=(1, 1))
    with pytest.raises(InputError, match=r"001\.tar\.gz changed during the run"):
        check_unchanged(sequence)
    archive.unlink()
    with pytest.raises(InputError, match="can no longer be read"):
        SilhouetteRecipe().make(sequence)


def test_a_tar_is_unpacked_once_for_all_its_sequences(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    for subject in ("001", "113"):
        pack(plain / subject, root / f"{subject}.tar.gz")
    sequences = casia.find(None, root).sequences
    opened: list[str] = []
    monkeypatch.setattr(
        archives, "_unpacked", lambda file, real=archives._unpacked: opened.append(file.name) or real(file)
    )
    for sequence in sequences:
        assert len(SilhouetteRecipe().make(sequence).pictures) == 7
    assert len(opened) == 2
