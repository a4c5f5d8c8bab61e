"""Small data sets as other programs lay them out, for the tests of what imports them."""

import pickle

import cv2
import numpy as np

SEQUENCES = (("001", "nm-01", "000"), ("001", "nm-01", "090"), ("001", "bg-01", "090"), ("002", "nm-01", "090"))
LENGTHS = (20, 7, 12, 30)


def arrays(*picture_shape):
    """An array uint8 [T, ...] for each sequence, by subject, walk and view: silhouettes, or random with channels."""
    random, made = np.random.default_rng(0), {}
    for name, length in zip(SEQUENCES, LENGTHS, strict=True):
        made[name] = random.integers(0, 256, (length, *picture_shape), np.uint8)
        if len(picture_shape) == 2:
            made[name] = outlines(length, *picture_shape)
        elif picture_shape[-1] == 4:  # a silhouette and a flow image
            made[name][..., 0] = outlines(length, *picture_shape[:2])
    return made


def outlines(length, height, width):
    """Silhouettes with the grey edges of resized ones, uint8 [T, H, W]; no two are alike."""
    large = np.zeros((length, 4 * height, 4 * width), np.uint8)
    for number, picture in enumerate(large):
        middle, axes = (2 * width, 2 * height + number % 5), (width // 2 + number % (width // 2 + 1), 3 * height // 2)
        cv2.ellipse(picture, middle, axes, number, 0, 360, 255, -1)
    return np.stack([cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA) for picture in large])


def write_pickles(folder, contents, file="{view}.pkl"):
    """Each array in a pickle of its own, as OpenGait has them; returns the folder."""
    for (subject, walk, view), array in contents.items():
        place = folder / subject / walk / view
        place.mkdir(parents=True, exist_ok=True)
        (place / file.format(view=view)).write_bytes(pickle.dumps(array))
    return folder


def write_hdf5(path, array, **attributes):
    """A file as the published program writes it: `data` compressed in chunks, the rest in attributes of the root."""
    import h5py

    with h5py.File(path, "w") as file:
        file.create_dataset("data", data=array, chunks=(min(5, len(array)), *array.shape[1:]), compression="gzip")
        file.create_dataset("frames", data=np.arange(len(array), dtype=np.uint16))
        for name, value in {"compressFactor": np.uint8(0), "gait": np.uint8(0), **attributes}.items():
            file.attrs[name] = value
    return path


def contents_of(store):
    """Every sequence's frames, by its subject, walk and view."""
    sequences = store.sequences
    names = zip(sequences.subject.tolist(), sequences.walk.tolist(), sequences.view.tolist(), strict=True)
    with store.reader() as reader:
        return {
            name: np.array(reader.read_clips([start], [length])[0])
            for name, start, length in zip(names, sequences.start.tolist(), sequences.length.tolist(), strict=True)
        }
