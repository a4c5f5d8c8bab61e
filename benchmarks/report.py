"""What all measurements share: taking turns, medians and spread, the machine and the versions, a table.

A report is a dictionary ready for JSON: {"machine", "versions", ..., "results": [{"name", UNIT, "min", "max"}]}, where
UNIT (such as "clips_per_s") is the median of all repeats.
"""

import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, distributions, version
from statistics import median
from typing import Any

from attengait.system.machine import affinity_cores, cpu_model, memory_bytes

Report = dict[str, Any]


def measure_in_turns(
    runs: Mapping[str, Callable[[int], float]],
    *,
    repeats: int,
    warm_up: bool = True,
    before: Callable[[str], None] = lambda name: None,
    on_repeat: Callable[[int], None] = lambda repeat: None,
) -> dict[str, list[float]]:
    """How much each of `runs` gets done per second: `repeats` values each.

    A run is called with the number of the repeat and returns how much it did. Repeat 0, left out without `warm_up`, is
    not counted. The runs take turns, so that whatever else the machine does hits all of them. `before` is called with
    a run's name before each, out of the measured time.
    """
    rates: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(0 if warm_up else 1, repeats + 1):
        for name, run in runs.items():
            before(name)
            started = time.perf_counter()
            amount = run(repeat)
            seconds = time.perf_counter() - started
            if repeat:
                rates[name].append(amount / seconds)
        on_repeat(repeat)
    return rates


def results(rates: Mapping[str, Sequence[float]], unit: str) -> list[Report]:
    """Median and spread of each."""
    return [
        {"name": name, unit: _rounded(median(values)), "min": _rounded(min(values)), "max": _rounded(max(values))}
        for name, values in rates.items()
    ]


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


def machine() -> Report:
    """Processor, cores that this process may use, memory in GiB, and how busy the machine was in the last minute."""
    return {
        "cpu": cpu_model(),
        "cores": affinity_cores(),
        "memory_gib": round((memory_bytes() or 0) / 2**30, 1),
        "load": round(os.getloadavg()[0], 1),
    }


def versions(*packages: str) -> dict[str, str]:
    """Of Python and of those packages that are installed; "nvidia-dali" stands for whichever build is."""
    found = {"python": platform.python_version()}
    for package in packages:
        name = package
        if package == "nvidia-dali":
            names = (str(each.name) for each in distributions())
            name = next((each for each in names if each.startswith("nvidia-dali-cuda")), package)
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def format_results(report: Report, unit: str, *, relative_to: str) -> str:
    """A table of a report's results, each beside the one named `relative_to`, and the machine below."""
    rows = report["results"]
    base = next(row[unit] for row in rows if row["name"] == relative_to)
    label = unit.replace("_per_", "/")
    width = max(len(row["name"]) for row in rows)
    lines = [f"{'':{width}}  {label:>10}  {'min':>8}  {'max':>8}  of {relative_to}"]
    lines += [
        f"{row['name']:{width}}  {row[unit]:10,.0f}  {row['min']:8,.0f}  {row['max']:8,.0f}  {row[unit] / base:.2f}"
        for row in rows
    ]
    about = report["machine"]
    lines.append(
        f"{about['cpu']}, {about['cores']} cores, {about['memory_gib']} GiB, load {about['load']}; "
        + ", ".join(f"{name} {number}" for name, number in report["versions"].items())
    )
    return "\n".join(lines)
