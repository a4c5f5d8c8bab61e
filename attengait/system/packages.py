"""Which packages are installed, where a library comes in several builds under different names."""

from importlib import metadata


def installed(*prefixes: str) -> dict[str, str]:
    """Versions of the installed packages whose names are one of `prefixes` or go on with a hyphen after it.

    `installed("cupy")` finds cupy-cuda12x. Names are in lower case, in alphabetical order.
    """
    found = {}
    for distribution in metadata.distributions():
        name = str(distribution.name or "").lower()
        if any(name == prefix or name.startswith(f"{prefix}-") for prefix in prefixes):
            found[name] = distribution.version
    return dict(sorted(found.items()))
