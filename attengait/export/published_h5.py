"""A store as the HDF5 files of the published AttenGait: one for each sequence, and a list of them for its trainer.

    OUT/NAME/001_nm-01_090.h5    `data` uint8 [T, 64, 64, 3], `frames` (0 to T - 1); label and the like as attributes
    OUT/NAME.h5                  the list: label, videoId, gait, cam [n], file (n names), compressFactor

The trainer looks for NAMEs of its own. CASIA-B is parted as it was published: subjects to 074 for training, and of the
others nm-01 to nm-04 for the gallery (ft), the rest for the probes (test). Every other data set is one part, with its
name and the number of its subjects: tfimdb_grew_N20000_train_of30_64x64.

The published program reads its list with the package deepdish. That keeps a list of names as the attributes i0, i1, ...
of a group with the title list:n.
"""

import io
import re
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from attengait.datasets.published_h5 import stem_of
from attengait.errors import AttenGaitError
from attengait.export.folder import Export, ExportSummary, SequenceFile, folder_to_make, names_of, write_export
from attengait.store import Store, open_store
from attengait.store.description import H5_FORMAT, description_of, to_json
from attengait.store.location import Where
from attengait.store.readers.base import Frames
from attengait.system.progress import SILENT, Progress

if TYPE_CHECKING:
    import h5py

_FRAME_SHAPE = (64, 64, 3)
_GALLERY_WALKS = ("nm-01", "nm-02", "nm-03", "nm-04")
_KINDS = {"nm": 0, "bg": 1, "cl": 2}
"""How CASIA-B's kinds of walk are numbered; all walks of other data sets are 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Details:
    """What a file says of its sequence."""

    label: int
    """The subject's number; 0 for one that nobody knows."""
    video: int
    """From 1, in each part."""
    gait: int
    camera: int
    """The view in degrees."""


def export_h5(
    where: Where, out: str | Path, *, workers: int = 1, dry_run: bool = False, progress: Progress = SILENT
) -> ExportSummary:
    """Write the store at `where`, a folder or a URL, into the folder `out`, which must not exist or be empty.

    Continues a run that was stopped, and does nothing when `out` is a finished export of the same store. Raises
    ParameterError for bad `workers` and for a URL as `out`;
    AttenGaitError when the store cannot be read, when its images are not 64 x 64 x 3, when a sequence has no name in
    the published layouts or fails its checksum, when `out` is something else, and when writing fails.
    """
    out = folder_to_make(out, workers)
    started = time.monotonic()
    store = open_store(where)
    if store.frame_shape != _FRAME_SHAPE:
        here, there = (" x ".join(map(str, shape)) for shape in (store.frame_shape, _FRAME_SHAPE))
        raise AttenGaitError(f"{store.location} has images of {here}, but the published program takes {there}")
    files = _files(store)
    names: dict[str, list[SequenceFile]] = {}
    for file in files:
        names.setdefault(file.path.partition("/")[0], []).append(file)
    export = Export(
        out=out,
        files=files,
        encode=_encode,
        marker=to_json(description_of(store.attributes, store.content_sha256), format=H5_FORMAT),
        extra={f"{name}.h5": partial(_list, part) for name, part in names.items()},
    )
    num_reused, is_done = write_export(export, workers=workers, dry_run=dry_run, progress=progress)
    return ExportSummary(
        out=out,
        num_sequences=len(store),
        num_frames=store.num_frames,
        num_bytes=store.num_frames * store.layout.frame_bytes,
        array_shape=" x ".join(["T", *map(str, _FRAME_SHAPE)]),
        num_reused=num_reused,
        num_files=len(files),
        seconds=time.monotonic() - started if is_done else None,
    )


def _files(store: Store) -> list[SequenceFile]:
    names = names_of(store)
    dataset = re.sub(r"[^0-9a-z]", "", str(store.attributes.get("dataset", "")).lower()) or "other"
    num_subjects = len({subject for subject, _, _ in names})
    num_videos: dict[str, int] = {}
    files = []
    for name, start, length in zip(names, store.sequences.start.tolist(), store.sequences.length.tolist(), strict=True):
        subject, walk, view = name
        stem = stem_of(subject, walk, view)
        if stem is None:
            raise AttenGaitError(
                f"{store.location}: the sequence {'/'.join(name)!r} has no name in the published layouts, which are as "
                "001/nm-01/090 (CASIA-B), 00001/01/090 (OUMVLP) and 00001/4XPn5Z28/000 (GREW)"
            )
        label = int(subject) if subject.isdecimal() else 0
        part = _part_of_casia_b(label, walk) if dataset == "casiab" else f"tfimdb_{dataset}_N{num_subjects:05d}_train"
        video = num_videos[part] = num_videos.get(part, 0) + 1
        details = _Details(label=label, video=video, gait=_KINDS.get(walk[:2], 0), camera=int(view))
        path = f"{part}_of30_64x64/{stem}.h5"
        files.append(SequenceFile(path=path, store=store.location, start=start, length=length, details=details))
    return files


def _part_of_casia_b(label: int, walk: str) -> str:
    if label <= 74:
        return "tfimdb_casiab_N074_train"
    return f"tfimdb_casiab_N050_{'ft' if walk in _GALLERY_WALKS else 'test'}"


def _encode(frames: Frames, details: Any) -> bytes:
    import h5py

    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.create_dataset("data", data=frames)
        file.create_dataset("frames", data=np.arange(len(frames), dtype=_smallest(len(frames))))
        file.attrs["compressFactor"] = np.uint8(0)
        for name, value in (("label", details.label), ("videoId", details.video), ("cams", details.camera)):
            file.attrs[name] = _smallest(value).type(value)
        file.attrs["gait"] = np.uint8(details.gait)
    return buffer.getvalue()


def _list(files: list[SequenceFile]) -> bytes:
    """The list of one part, as deepdish writes one."""
    import h5py

    details = [file.details for file in files]
    columns = {
        "label": [each.label for each in details],
        "videoId": [each.video for each in details],
        "gait": [each.gait for each in details],
        "cam": [each.camera for each in details],
    }
    buffer = io.BytesIO()
    # Formats before 1.8 have no index of attributes, and there is one for each sequence.
    with h5py.File(buffer, "w", libver=("v108", "v108")) as file:
        for name, values in columns.items():
            column: NDArray[Any] = np.array(values, _smallest(max(values)))
            file.create_dataset(name, data=column)
        _set(file, {"CLASS": b"GROUP", "VERSION": b"1.0", "PYTABLES_FORMAT_VERSION": b"2.1"})
        file.attrs["DEEPDISH_IO_VERSION"] = 12
        file.attrs["compressFactor"] = np.uint8(0)
        group = file.create_group("file")
        _set(group, {"CLASS": b"GROUP", "VERSION": b"1.0", "TITLE": f"list:{len(files)}".encode()})
        _set(group, {f"i{i}": file.path.rpartition("/")[2].encode() for i, file in enumerate(files)})
    return buffer.getvalue()


def _set(group: "h5py.Group", attributes: dict[str, bytes]) -> None:
    """Texts of a fixed length in UTF-8, as PyTables writes and reads them."""
    import h5py

    for name, text in attributes.items():
        group.attrs.create(name, text, dtype=h5py.string_dtype("utf-8", len(text)))


def _smallest(value: int) -> "np.dtype[Any]":
    """The published type of numbers, uint16, or uint32 where it is too small."""
    return np.dtype(np.uint16 if value < 1 << 16 else np.uint32)
