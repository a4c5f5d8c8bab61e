"""`gpu_run.py ROOT OUT GPUS`: preprocess walks by as many processes, with the host in the place of GPUs.

Killed if told so, as `store_run.py` is, which this imports for that.
"""

import sys
from pathlib import Path

import store_run
from host_devices import host_device

from attengait.datasets import Folders
from attengait.pipelines.preprocess.gpus import GpuProcesses
from attengait.preprocessing.flow import FlowRecipe
from attengait.preprocessing.run import PreprocessConfig, run_preprocessing
from attengait.system.progress import SILENT

assert store_run  # replaces os.replace


def run(root, out, num_gpus, progress=SILENT, *, make_device=host_device, num_readers=2, kind=FlowRecipe, **changes):
    executor = GpuProcesses(gpus=tuple(range(num_gpus)), num_readers=num_readers, make_device=make_device)
    config = PreprocessConfig(
        dataset="casia-b",
        folders=Folders(
            frames=Path(root) / ("rgb" if (Path(root) / "rgb").exists() else "video"),
            silhouettes=Path(root) / "silh",
        ),
        out=Path(out),
        recipe=kind(flow="cuda", **changes),
        executor=executor,
        chunk_frames=4,
    )
    return run_preprocessing(config, progress)


if __name__ == "__main__":
    root, out, num_gpus = sys.argv[1:]
    print(run(root, out, int(num_gpus)))
