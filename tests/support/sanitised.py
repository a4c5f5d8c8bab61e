"""Runs a script of this folder with the sanitizers' libraries in place, for code that is compiled with them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from attengait.kernels.runtime.compile import find_compiler


def run_sanitised(script: str) -> subprocess.CompletedProcess[str]:
    """Return what came of a script in a process of its own; skips the test where GCC's sanitizers are missing."""
    library = subprocess.run(["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=False)
    if "g++" not in os.path.realpath(shutil.which("c++") or "") or not os.path.isabs(library.stdout.strip()):
        pytest.skip("the C++ compiler is not GCC with its AddressSanitizer")
    environment = os.environ | {
        "LD_PRELOAD": library.stdout.strip(),
        "CXX": f"env -u LD_PRELOAD {find_compiler()}",  # the compiler itself would be twice as slow with a sanitizer
        "ASAN_OPTIONS": "detect_leaks=0",
        "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
    }
    command = [sys.executable, str(Path(__file__).with_name(script))]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
