"""Random generators keyed by what they are for: no picture depends on how many others are made, or in which order."""

import numpy as np

PURPOSES = ("body", "gait", "walk", "clothes", "skin", "room", "noise")


def generator(seed: int, purpose: str, *keys: int | str) -> np.random.Generator:
    """A Philox generator for one purpose (an entry of PURPOSES) and its keys, e.g. ("walk", subject, "nm-01")."""
    words = [int.from_bytes(key.encode(), "big") if isinstance(key, str) else key for key in keys]
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, PURPOSES.index(purpose), *words])))
