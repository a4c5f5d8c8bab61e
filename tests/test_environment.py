"""What a test and the programs that it starts find is the same, wherever the tests are started."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

CHILD = """
import json, locale, os, signal, sys, time
numbers = [signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGCHLD]
umask = os.umask(0)
print(json.dumps({
    "ignored": [number for number in numbers if signal.getsignal(number) is signal.SIG_IGN],
    "blocked": len(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
    "environment": dict(os.environ), "zone": time.tzname[0], "umask": umask,
}))
"""
TESTS = f"""
import os, subprocess, sys
from pathlib import Path
import pytest

def found():
    return subprocess.run([sys.executable, "-c", {CHILD!r}], check=True, capture_output=True, text=True).stdout

@pytest.fixture(scope="module")
def of_a_fixture():
    return found()

@pytest.mark.parametrize("number", [1, 2])
def test_what_is_found(of_a_fixture, number):
    Path("fixture").write_text(of_a_fixture)
    Path(f"test {{number}}").write_text(found())
    os.environ["LEFT"] = "by a test"
    assert list(Path.home().iterdir()) == []
    (Path.home() / ".rc").touch()
"""
HOSTILE = {"FORCE_COLOR": "1", "NO_COLOR": "1", "GITHUB_ACTIONS": "true", "COLUMNS": "40", "TERM": "dumb"}
HOSTILE |= {"LC_ALL": "C", "LANGUAGE": "de", "TZ": "Asia/Tokyo", "OMP_NUM_THREADS": "7", "PYTHONWARNINGS": "error"}
HOSTILE |= {"AWS_PROFILE": "somebody", "https_proxy": "http://127.0.0.1:1", "ATTENGAIT_DEBUG": "1"}


def be_hostile() -> None:
    os.umask(0o077)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_IGN)


def test_a_test_and_its_programs_find_what_is_known(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_bytes(Path(__file__).with_name("conftest.py").read_bytes())
    (tmp_path / "test_these.py").write_text(TESTS)
    home, temporary = tmp_path / "home", tmp_path / "some folder é"
    for folder in (home, temporary):
        folder.mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "ATTENGAIT_TESTS"} | HOSTILE
    environment |= {"HOME": str(home), "XDG_CACHE_HOME": str(home), "TMPDIR": str(temporary)}
    environment["PYTHONPATH"] = str(Path(__file__).parents[1])
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path)]
    done = subprocess.run(
        [*command, str(tmp_path)],
        env=environment,
        cwd=tmp_path,
        preexec_fn=be_hostile,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    founds = [json.loads((tmp_path / name).read_text()) for name in ("fixture", "test 1", "test 2")]
    for found in founds:
        assert (found["ignored"], found["blocked"], found["zone"], found["umask"]) == ([], 0, "UTC", 0o022)
        there = found["environment"]
        kept = {"LC_ALL": "C.UTF-8", "TZ": "UTC", "OMP_NUM_THREADS": "1"}
        assert {name: there[name] for name in HOSTILE if name in there and name != "COLUMNS"} == kept
        assert "LEFT" not in there
        for name in ("HOME", "XDG_CACHE_HOME", "TMPDIR"):
            assert Path(there[name]).is_relative_to(temporary)
    fixture, first, second = (found["environment"] for found in founds)
    assert "COLUMNS" not in fixture
    assert first["COLUMNS"] == second["COLUMNS"] == "300"
    assert len({each["HOME"] for each in (fixture, first, second)}) == 3
    assert first["XDG_CACHE_HOME"] == second["XDG_CACHE_HOME"]
    # Nothing is left, and nothing was put into the user's home.
    assert [*temporary.iterdir(), *home.iterdir()] == []
