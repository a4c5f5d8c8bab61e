"""What is looked at before anything large is imported."""

import resource
import subprocess
import sys

import pytest


@pytest.mark.parametrize(("limit_mb", "status"), [(500, 1), (4000, 0)])
def test_too_few_addresses_for_opencv_are_refused_in_one_sentence(limit_mb: int, status: int) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (limit_mb << 20, limit_mb << 20))

    done = subprocess.run(
        [sys.executable, "-m", "attengait", "--help"], preexec_fn=limit, capture_output=True, text=True, check=False
    )
    assert done.returncode == status
    refusal = (
        "attengait: a process may have 500 MB of addresses here (ulimit -v), but must be allowed at least 600 MB\n"
    )
    assert done.stderr == (refusal if status else "")
