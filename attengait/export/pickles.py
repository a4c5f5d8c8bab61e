"""A store as OpenGait's pickles: `subject/walk/view/view.pkl`, one uint8 array for each sequence.

OpenGait reads [T, H, W] where there is one channel and [T, C, H, W] where there are several: its transforms cut the
last axis (64 columns to 44, which it does itself) and its models move the second one to the front. A sequence's
folder must hold nothing else, because OpenGait reads every file in it, sorted by name.

Its multi-modal networks read several files of a sequence, such as `0_silhouette.pkl` and `1_flow.pkl`, and refuse those
of different lengths. Two stores give such files: see `attengait.export.alignment`.
"""

import pickle
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attengait.errors import AttenGaitError
from attengait.export.alignment import align
from attengait.export.folder import Export, ExportSummary, SequenceFile, folder_to_make, names_of, write_export
from attengait.store import Store, open_store
from attengait.store.description import MODALITIES, description_of, to_json, to_json_of_files
from attengait.store.location import Where
from attengait.store.readers.base import Frames
from attengait.system.files import write_atomically
from attengait.system.progress import SILENT, Progress


def export_pickles(
    where: Where,
    out: str | Path,
    *,
    beside: Where | None = None,
    workers: int = 1,
    dry_run: bool = False,
    progress: Progress = SILENT,
) -> ExportSummary:
    """Write the store at `where`, a folder or a URL, into the folder `out`, which must not exist or be empty.

    With another store `beside` it, each sequence gets two files of equal length, such as `0_silhouette.pkl` and
    `1_flow.pkl`: only frames, by their numbers, and sequences that both stores have are written. `OUT.skipped.jsonl`
    names what only one of them has.

    Continues a run that was stopped, and does nothing when `out` is a finished export of the same store. Raises
    ParameterError for bad `workers` and for a URL as `out`;
    AttenGaitError when a store cannot be read, when a name of it cannot be a folder's, when a sequence fails its
    checksum, when `out` is something else, when writing fails, and for two stores that have no frame in common, whose
    pictures have different sizes, or of which one keeps no frame numbers.
    """
    out = folder_to_make(out, workers)
    started = time.monotonic()
    store = open_store(where)
    left_out: tuple[str, ...] = ()
    report = None
    if beside is None:
        export, stores = _of_one(store, out), [store]
        num_frames, num_sequences = store.num_frames, len(store)
    else:
        stores = [store, open_store(beside)]
        export, left_out, report = _of_two(stores, out)
        num_sequences = len(export.files) // 2
        num_frames = sum(file.num_frames for file in export.files) // 2
    num_reused, is_done = write_export(export, workers=workers, dry_run=dry_run, progress=progress)
    if report is not None and not dry_run:
        write_atomically(out.with_name(f"{out.name}.skipped.jsonl"), report)
    return ExportSummary(
        out=out,
        num_sequences=num_sequences,
        num_frames=num_frames,
        num_bytes=num_frames * sum(each.layout.frame_bytes for each in stores),
        array_shape=" and ".join(" x ".join(["T", *map(str, _picture_shape(each))]) for each in stores),
        num_reused=num_reused,
        num_files=len(export.files),
        seconds=time.monotonic() - started if is_done else None,
        left_out=left_out,
    )


def pickle_array(array: NDArray[np.uint8]) -> bytes:
    """An array as a pickle that any NumPy reads, also those before 2.0, in which a module had another name."""
    data = pickle.dumps(array, protocol=3)
    # Protocol 3 names its modules in plain lines, the first right after the two bytes of its number.
    new, old = b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"
    return data[:2] + old + data[2 + len(new) :] if data.startswith(new, 2) else data


def _of_one(store: Store, out: Path) -> Export:
    folders = _folders(store)
    starts, lengths = store.sequences.start.tolist(), store.sequences.length.tolist()
    files = [
        SequenceFile(path=f"{folder}/{folder.rpartition('/')[2]}.pkl", store=store.location, start=start, length=length)
        for folder, start, length in zip(folders, starts, lengths, strict=True)
    ]
    marker = to_json(description_of(store.attributes, store.content_sha256))
    return Export(out=out, files=files, encode=_encode, marker=marker)


def _of_two(stores: list[Store], out: Path) -> tuple[Export, tuple[str, ...], bytes]:
    """The export, what only one store has in lines for the screen, and all of it as the report."""
    if stores[0].location == stores[1].location:
        raise AttenGaitError(f"{stores[0].location} is given twice: --with names a second store")
    sizes = [store.frame_shape[:2] for store in stores]
    if sizes[0] != sizes[1]:
        here, there = (" x ".join(map(str, size)) for size in sizes)
        raise AttenGaitError(
            f"{stores[0].location} has images of {here}, but {stores[1].location} of {there}: a network takes one size"
        )
    folders = [_folders(store) for store in stores]
    alignment = align(stores[0], stores[1])
    names = [f"{i}_{_modality(store)}.pkl" for i, store in enumerate(stores)]
    files = [
        SequenceFile(
            path=f"{folders[side][pair.indices[side]]}/{names[side]}",
            store=store.location,
            start=int(store.sequences.start[pair.indices[side]]),
            length=int(store.sequences.length[pair.indices[side]]),
            rows=pair.rows[side],
        )
        for side, store in enumerate(stores)
        for pair in alignment.pairs
    ]
    descriptions = [description_of(store.attributes, store.content_sha256) for store in stores]
    marker = to_json_of_files(dict(zip(names, descriptions, strict=True)), alignment.sha256)
    return Export(out=out, files=files, encode=_encode, marker=marker), alignment.lines(), alignment.report()


def _encode(frames: Frames, details: Any) -> bytes:
    frames = frames[..., 0] if frames.shape[-1] == 1 else np.moveaxis(frames, -1, 1)
    return pickle_array(np.ascontiguousarray(frames))


def _picture_shape(store: Store) -> tuple[int, ...]:
    height, width, channels = store.frame_shape
    return (height, width) if channels == 1 else (channels, height, width)


def _modality(store: Store) -> str:
    """For the name of a file: an attribute of a foreign store may be anything."""
    modality = store.attributes.get("modality")
    return modality if modality in MODALITIES else "other"


def _folders(store: Store) -> list[str]:
    """Where each sequence goes, relative to the folder; raises AttenGaitError for names that are no folders'."""
    names = names_of(store)
    for name in names:
        if any(part in ("", ".", "..") or "/" in part or "\0" in part for part in name):
            raise AttenGaitError(f"{store.location}: the sequence {'/'.join(name)!r} cannot be a folder")
    return ["/".join(name) for name in names]
