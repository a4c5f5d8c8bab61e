"""The library leaves the process that it runs in as it is; the command line does not."""

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import os, signal, sys

def state():
    # torch itself sets TORCHINDUCTOR_CACHE_DIR when an optimiser is made.
    import cv2, numcodecs.blosc, numpy, torch, zarr  # zarr sets the flag of numcodecs
    torch.cuda.manual_seed_all = seeds.append  # also queued where there is no GPU
    numbers = [n for n in range(1, 65) if n not in (signal.SIGKILL, signal.SIGSTOP)]
    return {
        "environment": {k: v for k, v in os.environ.items() if k != "TORCHINDUCTOR_CACHE_DIR"},
        "signals": [signal.getsignal(n) for n in numbers],
        "torch random state": hash(torch.random.get_rng_state().numpy().tobytes()),
        "numpy random state": hash(repr(numpy.random.get_state())),
        "torch": (torch.get_num_threads(), torch.get_default_dtype(), torch.are_deterministic_algorithms_enabled(),
                  torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic, torch.backends.cudnn.allow_tf32,
                  torch.backends.cudnn.conv.fp32_precision, torch.backends.cuda.matmul.fp32_precision,
                  torch.backends.mkldnn.matmul.fp32_precision, torch.get_float32_matmul_precision(),
                  torch.is_grad_enabled()),
        "opencv": (cv2.getNumThreads(), cv2.utils.logging.getLogLevel(), cv2.ocl.useOpenCL()),
        "numcodecs": numcodecs.blosc.use_threads,
        "malloc": calls[:],
        "seeds of all GPUs": seeds[:],
        "directory": os.getcwd(),
        "umask": (os.umask(0o22), os.umask(0o22))[0],
    }

calls, seeds = [], []
import ctypes
real = ctypes.CDLL
class Watched(real):
    def __getattr__(self, name):
        if name in ("mallopt", "malloc_trim"):
            calls.append(name)
        return super().__getattr__(name)
ctypes.CDLL = Watched

def use(old_store, folder):
    import attengait
    from attengait.synth.dataset import SynthConfig, write_walkers
    for name in attengait.__all__:
        getattr(attengait, name)
    write_walkers(folder / "walkers", SynthConfig(subjects=1, walks=("nm-01",), views=(90,), frames=8))
    walkers = {"frames": folder / "walkers" / "rgb", "silhouettes": folder / "walkers" / "silh"}
    attengait.preprocess("casia-b", folder / "walkers.zarr", **walkers, codec="lz4")
    store = attengait.open_store(old_store)
    settings = {"subjects_per_batch": 2, "clips_per_subject": 2, "stop_after_steps": 2, "device": "cpu",
                "deterministic": True}
    for cache in ("none", "host"):
        result = attengait.train(store, folder / cache, preset="demo", settings=settings | {"cache": cache})
        assert result.steps == 2
    model = attengait.load_model(result)
    model.embed(store[0])
    print(attengait.evaluate(attengait.embed(result, store, subjects="1-2")))
    with attengait.ClipStream.from_store(store, subjects_per_batch=2, clips_per_subject=2, clip_frames=16) as stream:
        for batch in stream:
            pass

def changed(before):
    after = state()
    return {name: (before[name], after[name]) for name in before if before[name] != after[name]}

if __name__ == "__main__":  # the processes that preprocess read this file, too
    from pathlib import Path
    before = state()
    use(Path(sys.argv[1]), Path(sys.argv[2]))
    assert not changed(before), changed(before)

    import torch
    from attengait.cli.train import stop_signals
    from attengait.store.location import limit_waiting
    from attengait.system.memory import keep_freed_memory
    limit_waiting()
    keep_freed_memory()
    torch.manual_seed(1)
    with stop_signals():
        seen = {*changed(before)}
    assert seen == {"environment", "malloc", "torch random state", "seeds of all GPUs", "signals"}, seen
"""


def test_a_run_in_python_changes_nothing_of_its_process(data: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(data / "walkers-0.1.0.zarr"), str(tmp_path)]
    # An earlier test may have run the command line in this process.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TENSORSTORE_")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr
