"""The library leaves the process that it runs in as it is; the command line does not."""

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import os, signal, sys

def state():
    # torch itself sets TORCHINDUCTOR_CACHE_DIR when an optimiser is made.
    import cv2, numcodecs.blosc, numpy, torch, zarr  # zarr sets the flag of numcodecs
    numbers = [n for n in range(1, 65) if n not in (signal.SIGKILL, signal.SIGSTOP)]
    return {
        "environment": {k: v for k, v in os.environ.items() if k != "TORCHINDUCTOR_CACHE_DIR"},
        "signals": [signal.getsignal(n) for n in numbers],
        "torch random state": hash(torch.random.get_rng_state().numpy().tobytes()),
        "numpy random state": hash(repr(numpy.random.get_state())),
        "torch": (torch.get_num_threads(), torch.get_default_dtype(), torch.are_deterministic_algorithms_enabled(),
                  torch.backends.cudnn.benchmark, torch.get_float32_matmul_precision(), torch.is_grad_enabled()),
        "opencv": (cv2.getNumThreads(), cv2.utils.logging.getLogLevel(), cv2.ocl.useOpenCL()),
        "numcodecs": numcodecs.blosc.use_threads,
        "malloc": calls[:],
        "directory": os.getcwd(),
        "umask": (os.umask(0o22), os.umask(0o22))[0],
    }

calls = []
import ctypes
real = ctypes.CDLL
class Watched(real):
    def __getattr__(self, name):
        if name in ("mallopt", "malloc_trim"):
            calls.append(name)
        return super().__getattr__(name)
ctypes.CDLL = Watched

before = state()
import attengait
from attengait.system.memory import keep_freed_memory
for name in attengait.__all__:
    getattr(attengait, name)
store = attengait.open_store(sys.argv[1])
settings = {"subjects_per_batch": 2, "clips_per_subject": 2, "stop_after_steps": 1}
result = attengait.train(store, sys.argv[2], preset="demo", settings=settings)
model = attengait.load_model(result)
model.embed(store[0])
print(attengait.evaluate(attengait.embed(result, store, subjects="1-2")))
with attengait.ClipStream.from_store(store, subjects_per_batch=2, clips_per_subject=2, clip_frames=16) as stream:
    for batch in stream:
        pass
after = state()
changed = {name: (before[name], after[name]) for name in before if before[name] != after[name]}
assert not changed, changed
keep_freed_memory()
assert calls, "the watch on malloc sees nothing"
"""


def test_a_run_in_python_changes_nothing_of_its_process(data: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(data / "walkers-0.1.0.zarr"), str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
