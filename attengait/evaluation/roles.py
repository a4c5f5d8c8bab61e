"""Which walks of a protocol are gallery and which are probes, and whether given sequences have any of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from attengait.evaluation.names import Names


@dataclass(frozen=True, slots=True, kw_only=True)
class Roles:
    """The walks of a protocol that compares different views."""

    gallery: tuple[str, ...]
    probes: Mapping[str, tuple[str, ...]]
    """By condition, like "nm"."""

    @property
    def probe_walks(self) -> tuple[str, ...]:
        """Of all conditions."""
        return tuple(chain.from_iterable(self.probes.values()))

    def in_gallery(self, walks: Names) -> NDArray[np.bool_]:
        """[n]: which of the walks [n] are gallery."""
        return np.isin(walks, self.gallery)

    def in_probes(self, walks: Names, condition: str | None = None) -> NDArray[np.bool_]:
        """[n]: which of the walks [n] are probes, of one condition or of any."""
        return np.isin(walks, self.probe_walks if condition is None else self.probes[condition])

    def fit(self, walks: Names, views: Names) -> bool:
        """Whether sequences of these walks [n] and views [n] hold a probe and a gallery item at another view."""
        gallery_views = set(views[self.in_gallery(walks)].tolist())
        probe_views = set(views[self.in_probes(walks)].tolist())
        return bool(gallery_views and probe_views) and len(gallery_views | probe_views) > 1
