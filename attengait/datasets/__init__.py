"""Data sets as they lie on a disk: one adapter each, found by name. An adapter yields sequences; nothing is decoded.

Another package adds a data set by an entry point in the group `attengait.datasets`: a name, and an `Adapter`.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields

from attengait.datasets import casia_b, folders, grew, opengait, opengait_sets, oumvlp, published_h5
from attengait.datasets.pictures import Pictures
from attengait.datasets.source import Folders, Part, Scan, SourceSequence
from attengait.datasets.video import Video
from attengait.errors import ParameterError
from attengait.system.plugins import PluginError, find_plugin, plugin_names

__all__ = [
    "DATASETS",
    "Adapter",
    "Folders",
    "Part",
    "Pictures",
    "Scan",
    "SourceSequence",
    "Video",
    "dataset_names",
    "find_dataset",
]

GROUP = "attengait.datasets"


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """How one data set is found on a disk."""

    scan: Callable[[Folders], Scan]
    """Finds the sequences; raises AttenGaitError where there are none."""
    takes: tuple[str, ...]
    """The fields of Folders that it looks into."""
    packages: tuple[str, ...] = ()
    """Packages that have a hand in the bytes, beside those that are always recorded."""
    ready: tuple[str, ...] = ()
    """Modalities, flow or silhouette, whose pictures are distributed ready-made: they are kept, not computed."""
    computed: tuple[str, ...] = ()
    """Modalities that are computed although others are ready."""
    resize: str = "cubic"
    """How ready flow images of another size are resized, as published: a key of
    `attengait.preprocessing.ready_flow.INTERPOLATIONS`."""
    title: str = ""
    """What it is, in a few words. This and what follows is what `attengait datasets` prints."""
    needs: str = ""
    """What must be on the disk."""
    home: str = ""
    """Where it is asked for: an address, or who has it. Empty for what is one's own."""
    licence: str = ""
    """What one may do with it, in one line."""
    protocol: str = ""
    """The protocol of `attengait evaluate` that scores it; empty where there is none of its own."""

    @property
    def about(self) -> dict[str, str]:
        """What a user needs to know of it, by name; what is empty has no meaning here."""
        names = ("title", "needs", "home", "licence", "protocol")
        return {name: getattr(self, name) for name in names}

    def check(self, name: str, given: Folders) -> None:
        """Raise ParameterError for a folder that the data set has no use for."""
        for field in (field.name for field in fields(given)):
            value = getattr(given, field)
            if value is not None and field not in self.takes:
                takes = " and ".join(filter(None, (", ".join(self.takes[:-1]), self.takes[-1])))
                raise ParameterError(f"{field} is {str(value)!r}, but must be left out: {name} takes {takes} only")


_OWN = "whatever its data set asks for"


def _of_pickles(name: str, *, title: str, home: str) -> Adapter:
    """A data set in OpenGait's layout; its protocol has its name."""
    return Adapter(
        scan=opengait_sets.SCANS[name],
        takes=("files", "pattern"),
        title=title,
        needs=f"OpenGait's pickles of it, read by attengait import pickles --dataset {name}",
        home=home,
        licence="on request; see its home page",
        protocol=name,
    )


DATASETS: dict[str, Adapter] = {
    "casia-b": Adapter(
        scan=casia_b.scan,
        takes=("frames", "silhouettes"),
        title="CASIA-B: 124 subjects, 10 walks, 11 views",
        needs="silhouettes (pictures, unpacked or not); for flow also the videos, or pictures extracted from them",
        home="http://www.cbsr.ia.ac.cn/english/Gait%20Databases.asp",
        licence="research only, on request; it may not be passed on",
        protocol="casia-b",
    ),
    "grew": Adapter(
        scan=grew.scan,
        takes=("flow_images", "silhouettes", "files", "pattern"),
        ready=("flow", "silhouette"),
        title="GREW: 26,345 subjects, 128,671 sequences, and distractors",
        needs="its flow images, its silhouettes, or OpenGait's pickles (attengait import pickles --dataset grew)",
        home="https://www.grew-benchmark.org",
        licence="on request; see its home page",
        protocol="grew",
    ),
    "oumvlp": Adapter(
        scan=oumvlp.scan,
        takes=("flow_images", "silhouettes"),
        ready=("flow",),
        computed=("silhouette",),
        resize="linear",
        title="OUMVLP-OF and OUMVLP: 10,307 subjects, 14 views",
        needs="its flow images, pictures or MP4 videos, or its silhouettes, pictures",
        home="http://www.am.sanken.osaka-u.ac.jp/BiometricDB/GaitLPOF.html",
        licence="on request; see its home page",
        protocol="oumvlp",
    ),
    "folders": Adapter(
        scan=folders.scan,
        takes=("frames", "silhouettes", "layout", "silhouette_layout", "constants"),
        title="any tree of folders that --layout describes",
        needs="silhouettes (pictures); for flow also frames: pictures or videos",
        licence="your own",
    ),
    "gait3d": _of_pickles(
        "gait3d",
        title="Gait3D: 4,000 subjects, 39 cameras in a supermarket",
        home="https://gait3d.github.io",
    ),
    "ccpg": _of_pickles(
        "ccpg",
        title="CCPG: 200 subjects in changed clothes",
        home="https://github.com/BNU-IVC/CCPG",
    ),
    "sustech1k": _of_pickles(
        "sustech1k",
        title="SUSTech1K: 1,050 subjects, 12 views, eight conditions",
        home="https://lidargait.github.io",
    ),
    "casia-e": _of_pickles(
        "casia-e",
        title="CASIA-E: 1,014 subjects, three scenes",
        home="https://www.scidb.cn/en/detail?dataSetId=57be0e918db743279baf44a38d013a06",
    ),
    "hid": _of_pickles(
        "hid",
        title="HID: the challenge's gallery, and probes without labels",
        home="https://hid2023.iapr-tc4.org",
    ),
    "pickles": Adapter(
        scan=opengait.scan,
        takes=("files", "pattern"),
        title="pickles of OpenGait, of any data set",
        needs="subject/type/view/*.pkl, read by attengait import pickles",
        licence=_OWN,
    ),
    "h5": Adapter(
        scan=published_h5.scan,
        takes=("files",),
        packages=("h5py",),
        title="HDF5 files of the published program, of any data set",
        needs="one .h5 file for each sequence, read by attengait import h5",
        licence=_OWN,
    ),
}
"""The sources of AttenGait itself by their names: data sets, and files of other programs."""


def dataset_names() -> tuple[str, ...]:
    """Every name that `find_dataset` knows: ours, then those of other packages."""
    return plugin_names(DATASETS, GROUP)


def find_dataset(name: str) -> Adapter:
    """Return a data set's adapter.

    Raises ParameterError for an unknown name, and PluginError where another package's adapter cannot be used: it cannot
    be loaded, is no Adapter, or has a name that is taken.
    """
    adapter = find_plugin(DATASETS, GROUP, name, "dataset")()
    if not isinstance(adapter, Adapter):
        raise PluginError(
            f"dataset is {name!r}, but what a package adds by this name is a {type(adapter).__name__}, not an "
            "attengait.datasets.Adapter"
        )
    return adapter
