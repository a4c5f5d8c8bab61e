"""Fuzz one reader, with atheris (`pip install '.[fuzz]'`): python tests/fuzz/fuzz.py TARGET [SECONDS]

It stops at the first input that raises anything but AttenGaitError, takes more than 20 seconds or more than 4 GB, and
keeps that input as crash-*, timeout-* or oom-* in the current folder.
"""

import contextlib
import shutil
import sys
import tempfile
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

with atheris.instrument_imports(include=["attengait", "json", "pickle", "zipfile"]):
    from fuzz_targets import TARGETS

    from attengait.errors import AttenGaitError


def main() -> None:
    name, seconds = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "600"
    target = TARGETS[name]
    base = Path(tempfile.mkdtemp(prefix=f"fuzz-{name}-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    corpus, made, work = base / "corpus", base / "made", base / "work"
    corpus.mkdir()
    made.mkdir()
    for i, seed in enumerate(target.seeds(made)):
        (corpus / f"seed-{i}").write_bytes(seed)

    def one_input(content: bytes) -> None:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        with contextlib.suppress(AttenGaitError):
            target.run(work, content)

    limits = [
        "-timeout=20",
        "-rss_limit_mb=4096",
        f"-max_total_time={seconds}",
        "-max_len=2000000",
        "-print_final_stats=1",
    ]
    atheris.Setup([sys.argv[0], str(corpus), *limits], one_input)
    try:
        atheris.Fuzz()
    finally:
        shutil.rmtree(base, ignore_errors=True)


if __name__ == "__main__":
    main()
