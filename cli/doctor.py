"""The `doctor` command."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from attengait.cli.output import cell, say, say_json, say_table
from attengait.errors import AttenGaitError

_NONE = "-"


def doctor(
    folder: Annotated[Path, typer.Option(help="Folder whose disk is measured.")] = Path("."),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Say what this machine has (GPU, libraries, compilers, cores, memory, disk) and which flow it can compute.

    To measure the disk, it writes a file of 64 MiB, reads it and removes it.
    """
    from attengait.system.doctor import examine

    if not folder.is_dir():
        raise AttenGaitError(f"folder is {folder}, but must be a folder that exists")
    report = examine(folder)
    if as_json:
        say_json(json.dumps(report, indent=2))
        return
    for title, rows in tables_of(report).items():
        table = Table(title=cell(title), show_header=False, title_justify="left", box=None, padding=(0, 2))
        table.add_column(no_wrap=True, min_width=14)
        for name, text in rows:
            table.add_row(cell(name), cell(text))
        say_table(table)
        say("")


def tables_of(report: dict[str, Any]) -> dict[str, list[tuple[str, str]]]:
    """What the report says, in words: for each title its rows."""
    about, gpu, memory, disk, processor, flow = (
        report[name] for name in ("attengait", "gpu", "memory", "disk", "processor", "flow")
    )
    libraries, compilers = report["libraries"], report["compilers"]
    return {
        f"AttenGait {about['version']}, Python {about['python']}, {about['system']}": [],
        "GPU": _gpu_rows(gpu),
        "Libraries": [
            ("DALI", _dali(libraries["dali"])),
            ("CuPy", _cupy(libraries["cupy"])),
            ("torch", _with_cuda(libraries["torch"])),
            ("OpenCV", _with_cuda(libraries["opencv"])),
        ],
        "Compilers": [(name, _plain(found)) for name, found in compilers.items()],
        "Machine": [
            ("processor", _processor(processor)),
            ("threads", _threads(report["threads"])),
            ("memory", _memory(memory)),
            *_disk_rows(disk),
        ],
        "Flow": _flow_rows(flow),
    }


def _gpu_rows(gpu: dict[str, Any]) -> list[tuple[str, str]]:
    rows = [
        (f"GPU {i}", f"{device['name']}, {_gib(device['memory_bytes'])}, compute {device['compute_capability']}")
        for i, device in enumerate(gpu.get("devices", ()))
    ] or [("GPU", f"none: {gpu['problem']}")]
    if gpu.get("driver"):
        rows.append(("driver", f"{gpu['driver']}, runs CUDA up to {gpu['driver_cuda'] or _NONE}"))
    return [*rows, ("hardware flow", _plain(gpu.get("hardware_flow")))]


def _dali(dali: dict[str, Any] | None) -> str:
    if dali is None or "builds" not in dali:
        return _plain(dali)
    text = _packages(dali["builds"])
    if dali["decoders"]:
        text += f"; decoders: {_packages(dali['decoder_packages'])}"
    else:
        text += "; its decoders (nvimgcodec) are missing"
    return text + (f"; {dali['problem']}" if "problem" in dali else "")


def _cupy(cupy: dict[str, Any] | None) -> str:
    if cupy is None or "builds" not in cupy:
        return _plain(cupy)
    return f"{_packages(cupy['builds'])}; CUDA runtime {_plain(cupy['runtime'])}"


def _with_cuda(library: dict[str, Any] | None) -> str:
    if library is None or "version" not in library:
        return _plain(library)
    cuda = library["cuda"]
    return f"{library['version']}, " + (f"CUDA {cuda}" if isinstance(cuda, str) else f"CUDA {'yes' if cuda else 'no'}")


def _processor(processor: dict[str, Any]) -> str:
    if "model" not in processor:
        return _plain(processor)
    text = f"{processor['model']}, {processor['cores']} cores, {processor['usable_cores']} usable"
    granted = processor["cgroup_cores"]
    return text + (f" (the control group grants {granted:g})" if granted is not None else "")


def _threads(threads: dict[str, Any] | None) -> str:
    if threads is None or "environment" not in threads:
        return _plain(threads)
    said = threads["environment"]
    library = ", ".join(threads["openmp"]) or "OpenMP"
    if "libgomp" in library and not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & said.keys():
        waits = "they spin long while they wait, which is slow where other work needs the cores"
    else:
        waits = "how they wait: " + (", ".join(f"{name}={value}" for name, value in said.items()) or "as by default")
    return f"of torch, by {library}; {waits}"


def _memory(memory: dict[str, Any]) -> str:
    if memory.get("bytes") is None:
        return _plain(memory.get("problem"))
    granted = memory["cgroup_bytes"]
    return _gib(memory["bytes"]) + (f" (the control group grants {_gib(granted)})" if granted is not None else "")


def _disk_rows(disk: dict[str, Any]) -> list[tuple[str, str]]:
    if "folder" not in disk:
        return [("disk", _plain(disk))]
    rows = [("disk", f"{disk['folder']}, {disk['free_bytes'] / 1e9:,.1f} GB free")]
    if "problem" in disk:
        return [*rows, ("disk rate", disk["problem"])]
    write, read = (disk[f"{name}_bytes_per_second"] / 1e6 for name in ("write", "read"))
    text = f"writes {write:,.0f} MB/s; reads {read:,.0f} MB/s, from memory where the page cache keeps the file"
    return [*rows, ("disk rate", text)]


def _flow_rows(flow: dict[str, Any]) -> list[tuple[str, str]]:
    if "backends" not in flow:
        return [("flow", _plain(flow))]
    rows = []
    for name, backend in flow["backends"].items():
        missing = backend["missing"]
        rows.append((name, "usable" if missing is None else f"no: {_plain(missing)}"))
    return [*rows, ("auto", f"takes {flow['auto']}")]


def _packages(packages: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in packages.items()) or _NONE


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / 2**30:,.1f} GiB"


def _plain(found: Any) -> str:
    if isinstance(found, dict):
        return str(found.get("problem", _NONE))
    return _NONE if found is None else str(found)
