"""What other packages add by entry points: loggers, data sets. One way to find and load them.

A package adds something by a name in a group of entry points. It is loaded only when its name is asked for.
"""

from collections.abc import Callable, Mapping
from importlib import metadata
from typing import TypeVar

from attengait.errors import AttenGaitError
from attengait.system.lookup import check_name

Entry = TypeVar("Entry")


class PluginError(AttenGaitError):
    """Something that another package adds cannot be used."""


def plugin_names(own: Mapping[str, Entry], group: str) -> tuple[str, ...]:
    """The names of what AttenGait has itself, in its order, then those that other packages add."""
    return (*own, *sorted({entry.name for entry in metadata.entry_points(group=group)} - own.keys()))


def find_plugin(own: Mapping[str, Entry], group: str, name: str, parameter: str) -> Callable[[], Entry]:
    """How to get what is called `name`: one of `own`, or what an installed package adds in the group.

    Nothing is loaded yet: what is returned does that, and raises PluginError in one sentence where it fails.

    Raises ParameterError, which names the parameter, for an unknown name, and PluginError for a name that several have.
    """
    check_name(plugin_names(own, group), name, parameter)
    added = metadata.entry_points(group=group, name=name)
    owners = [*(["AttenGait itself"] if name in own else []), *sorted({_owner(entry) for entry in added})]
    if len(owners) > 1:
        raise PluginError(
            f"{parameter} is {name!r}, but that is the name of several: {' and '.join(owners)} have it. Remove all of "
            "these packages but one, or rename its entry point"
        )
    if name in own:
        return lambda: own[name]
    (entry, *_) = added

    def load() -> Entry:
        try:
            found: Entry = entry.load()
        except Exception as error:  # whatever it is: others wrote it
            what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            sentence = f"{parameter} is {name!r}, but {_owner(entry)}, which adds it, cannot be loaded ({what})"
            raise PluginError(sentence) from None
        return found

    return load


def _owner(entry: metadata.EntryPoint) -> str:
    return f"the package {entry.dist.name}" if entry.dist is not None else f"the module {entry.module}"
