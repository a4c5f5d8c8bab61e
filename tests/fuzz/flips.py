"""Flip bits in files of our own formats and read them: python tests/fuzz/flips.py [TARGET ...] [--samples N]

Each byte of small files is flipped once, and N places (3,000 unless told) of larger ones. A flip is "right" where the
same content is read, "refused" where an AttenGaitError is raised, "silent" where other content is read, "traceback"
where another error is raised, "hung" where reading takes more than 20 seconds.
"""

import argparse
import collections
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from fuzz_targets import TARGETS

from attengait.errors import AttenGaitError

KINDS = ("right", "refused", "silent", "traceback", "hung")
SECONDS = 20
SMALL_BYTES = 20_000


class Hung(BaseException):
    """Reading took too long."""


def hang(number: int, frame: object) -> None:
    raise Hung


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    own = [name for name, target in TARGETS.items() if target.has_checksums]
    parser.add_argument("targets", nargs="*", default=own)
    parser.add_argument("--samples", type=int, default=3000)
    chosen = parser.parse_args()
    signal.signal(signal.SIGALRM, hang)
    print("| file | flips | " + " | ".join(KINDS) + " |\n" + "|---|" + "---:|" * (1 + len(KINDS)))
    faults = 0
    for name in chosen.targets:
        counts = flips_of(name, chosen.samples)
        faults += counts["silent"] + counts["traceback"] + counts["hung"]
        print(
            f"| {name} | {counts.total():,} | " + " | ".join(f"{counts[kind]:,}" for kind in KINDS) + " |", flush=True
        )
    sys.exit(1 if faults else 0)


def flips_of(name: str, samples: int) -> collections.Counter[str]:
    """How the flips of one target end."""
    target, random, counts = TARGETS[name], np.random.default_rng(0), collections.Counter[str]()
    base = Path(tempfile.mkdtemp(prefix=f"flips-{name}-"))
    made, work = base / "made", base / "work"
    made.mkdir()
    try:
        for seed in target.seeds(made):
            expected, _ = read(target.run, work, seed)
            # The first byte of a store's content names the file; it is no part of it.
            first = 1 if name == "store" else 0
            num_bytes = len(seed) - first
            places = range(num_bytes) if num_bytes <= SMALL_BYTES else random.integers(0, num_bytes, samples)
            for place in places:
                damaged = bytearray(seed)
                damaged[first + place] ^= 1 << int(random.integers(8))
                found, kind = read(target.run, work, bytes(damaged))
                if kind == "right" and found != expected:
                    kind = "silent"
                if kind in ("silent", "traceback", "hung"):
                    print(f"{name}: byte {place} of {num_bytes}: {kind} {found}"[:300], file=sys.stderr)
                counts[kind] += 1
    finally:
        shutil.rmtree(base, ignore_errors=True)
    return counts


def read(run: object, work: Path, content: bytes) -> tuple[object, str]:
    """What is read, and how it ended."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    signal.alarm(SECONDS)
    try:
        return run(work, content), "right"  # type: ignore[operator]
    except AttenGaitError as error:
        return str(error), "refused"
    except Hung:
        return None, "hung"
    except Exception as error:
        return f"{type(error).__name__}: {error}", "traceback"
    finally:
        signal.alarm(0)


if __name__ == "__main__":
    main()
