"""Data sets as they lie on a disk: one adapter each, found by name. An adapter yields sequences; nothing is decoded."""

from collections.abc import Callable
from dataclasses import dataclass

from attengait.datasets import casia_b, opengait, published_h5
from attengait.datasets.pictures import Pictures
from attengait.datasets.source import Folders, Part, Scan, SourceSequence
from attengait.datasets.video import Video
from attengait.errors import ParameterError
from attengait.system.lookup import look_up

__all__ = ["DATASETS", "Adapter", "Folders", "Part", "Pictures", "Scan", "SourceSequence", "Video", "find_dataset"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """How one data set is found on a disk."""

    scan: Callable[[Folders], Scan]
    """Finds the sequences; raises AttenGaitError where there are none."""
    takes: tuple[str, ...]
    """The fields of Folders that it looks into."""
    packages: tuple[str, ...] = ()
    """Packages that have a hand in the bytes, beside those that are always recorded."""

    def check(self, name: str, folders: Folders) -> None:
        """Raise ParameterError for a folder that the data set has no use for."""
        for field in ("frames", "silhouettes", "files", "pattern"):
            value = getattr(folders, field)
            if value is not None and field not in self.takes:
                takes = " and ".join(self.takes)
                raise ParameterError(f"{field} is {str(value)!r}, but must be left out: {name} takes {takes} only")


DATASETS: dict[str, Adapter] = {
    "casia-b": Adapter(scan=casia_b.scan, takes=("frames", "silhouettes")),
    "pickles": Adapter(scan=opengait.scan, takes=("files", "pattern")),
    "h5": Adapter(scan=published_h5.scan, takes=("files",), packages=("h5py",)),
}
"""Every source by its name: data sets, and files of other programs."""


def find_dataset(name: str) -> Adapter:
    """Return a data set's adapter. Raises ParameterError for an unknown name."""
    return look_up(DATASETS, name, "dataset")
