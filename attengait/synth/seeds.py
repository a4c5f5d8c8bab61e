"""One random generator for each purpose, so that a picture does not depend on the number or order of other pictures."""

import numpy as np

PURPOSES = ("body", "gait", "walk", "clothes", "skin", "room", "noise", "rhythm", "camera")


def generator(seed: int, purpose: str, *keys: int | str) -> np.random.Generator:
    """A Philox generator for one purpose (an entry of PURPOSES) and its keys, e.g. ("walk", subject, "nm-01")."""
    words = [int.from_bytes(key.encode(), "big") if isinstance(key, str) else key for key in keys]
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, PURPOSES.index(purpose), *words])))
