"""What the documentation shows of the reports: tables and single values in Markdown, each under its name.

A function takes the reports by the names of their files and returns one value, or a table of several lines. Figures are
medians; the least and the most of all repeats follow in brackets.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

Reports = Mapping[str, Any]
Row = Mapping[str, Any]

LOADER_WAYS = {
    "stream": "`stream`: from the store to torch",
    "stream, cache host": "`stream, cache host`: the same, with `--cache host`",
    "gather": "`gather`: numpy.take from frames in memory, one thread",
    "tensorstore": "`tensorstore`, in batches",
    "npy-dataloader": "`npy-dataloader`: DataLoader over one memory-mapped .npy",
    "pickle-dataloader, uint8": "`pickle-dataloader, uint8`: DataLoader over pickles, made as fast as we could",
    "h5py": "`h5py`: DataLoader over one HDF5 file for each sequence",
    "pickle-dataloader": "`pickle-dataloader`: DataLoader over pickles as OpenGait does it, with conversion to float",
    "zarr-python": "`zarr-python`: one slice for each clip",
}
"""The rows of the loader's table, by their names in the report."""
LOADERS_OF_OTHERS = {
    "stream": "`stream`",
    "stream, cache host": "`stream, cache host`",
    "gather": "`gather`",
    "ffcv": "FFCV, clips cut beforehand, each a record",
    "litdata": "LitData",
    "grain": "Grain over ArrayRecord",
    "arrayrecord": "DataLoader over ArrayRecord",
    "webdataset": "WebDataset",
}
"""The rows of the table of others' loaders, by their names in the report."""


def number(value: float) -> str:
    """A figure as people read it: 28,050, 121, 15.9 or 0.13."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 1 else f"{value:.2f}"


def spread(row: Row, unit: str, least: str = "min", most: str = "max") -> str:
    """A median with its range: 28,050 (27,690 to 32,740)."""
    return f"{number(row[unit])} ({number(row[least])} to {number(row[most])})"


def named(rows: Sequence[Row], **wanted: object) -> Row:
    """The first of the rows that has all these values; KeyError if there is none."""
    for row in rows:
        if all(row[key] == value for key, value in wanted.items()):
            return row
    raise KeyError(wanted)


def table(head: Sequence[str], rows: Sequence[Sequence[str]], report: Row, repeats: int | None = None) -> str:
    """A table in Markdown and a line that says how it was measured."""
    lines = [head, ["---"] * len(head), *rows]
    how = [] if repeats is None else [f"Median of {repeats} repeats, with the least and the most in brackets."]
    how.append(f"Load of the machine at the end: {report['machine']['load']}.")
    return "\n".join([*(f"| {' | '.join(line)} |".replace("|  |", "| |") for line in lines), "", " ".join(how)])


def machine(reports: Reports) -> str:
    """Processor, cores and memory."""
    about = reports["loader"][0]["machine"]
    return f"{about['cpu']}, {about['cores']} cores, {about['memory_gib']} GiB of memory"


def versions(reports: Reports) -> str:
    """Python and the packages."""
    found = reports["loader"][0]["versions"]
    return ", ".join(f"{name} {version}" for name, version in found.items())


def preprocess(reports: Reports) -> str:
    """Frames/s of the whole of preprocessing."""
    report = reports["preprocess"]
    rows = report["sizes"][0]["results"]
    lines = [
        [label, *(spread(named(rows, name=f"{flow}, {label}"), "frames_per_s") for flow in ("opencv", "cpu"))]
        for label in ("1 worker", "2 workers")
    ]
    lines.append(["the published script, on one core of another machine", str(report["published"]["frames_per_s"]), ""])
    return table(["frames/s", "`--flow opencv`", "`--flow cpu`"], lines, report, report["repeats"])


def preprocess_stages(reports: Reports) -> str:
    """Milliseconds of each stage for one frame."""
    report = reports["preprocess"]
    stages = report["sizes"][0]["stages"]
    lines = [
        [row["name"], *(spread(named(stages[flow], name=row["name"]), "ms_per_frame") for flow in ("opencv", "cpu"))]
        for row in stages["cpu"]
    ]
    return table(["milliseconds per frame", "`--flow opencv`", "`--flow cpu`"], lines, report, report["repeats"])


def preprocess_sizes(reports: Reports) -> str:
    """Frames/s for other sizes of frames."""
    report = reports["preprocess-sizes"]
    lines = [
        [
            part["size"].replace("x", " x "),
            str(part["sequences"]),
            *(spread(named(part["results"], name=f"{flow}, 2 workers"), "frames_per_s") for flow in ("opencv", "cpu")),
        ]
        for part in report["sizes"]
    ]
    head = ["frames/s, 2 workers", "sequences", "`--flow opencv`", "`--flow cpu`"]
    return table(head, lines, report, report["repeats"])


def flow(reports: Reports) -> str:
    """Pairs of frames/s of the flow alone."""
    report = reports["flow"]
    lines = []
    for row in report["results"]:
        if row["backend"] == "opencv":
            ours = named(report["results"], backend="cpu", size=row["size"], batch=row["batch"])
            rates = [spread(each, "pairs_per_s") for each in (row, ours)]
            ratio = f"{ours['pairs_per_s'] / row['pairs_per_s']:.1f}"
            lines.append([row["size"].replace("x", " x "), str(row["batch"]), *rates, ratio])
    head = ["size", "pairs at once", "`opencv`, pairs/s", "`cpu`, pairs/s", "`cpu` / `opencv`"]
    return table(head, lines, report, report["repeats"])


def loader(reports: Reports, index: int = 0) -> str:
    """Clips/s of every way to the same clips, warm and cold."""
    report = reports["loader"][index]
    rows = {row["name"]: row for row in report["results"]}
    lines = [
        [
            label,
            *(spread(rows[key], "clips_per_s") if (key := name + state) in rows else "" for state in ("", ", cold")),
        ]
        for name, label in LOADER_WAYS.items()
        if name in rows
    ]
    return table(["clips/s", "in the page cache", "page cache emptied"], lines, report, report["store"]["repeats"])


def loader_peers(reports: Reports) -> str:
    """Clips/s of our stream and of the loaders of others, in one run."""
    report = reports["loader-peers"]
    rate = named(report["results"], name="stream")["clips_per_s"]
    lines = []
    for name, label in LOADERS_OF_OTHERS.items():
        row = named(report["results"], name=name)
        gain = rate / row["clips_per_s"]
        lines.append([label, spread(row, "clips_per_s"), f"{gain:.2f}" if gain < 10 else f"{gain:.0f}"])
    head = ["in the page cache", "clips/s", "`stream` / this"]
    return table(head, lines, report, report["store"]["repeats"])


def layout(reports: Reports) -> str:
    """Size and clips/s for each codec and length of chunks."""
    report = reports["layout"]
    return _layouts(report, "chunk_frames", "frames of a chunk")


def layout_shards(reports: Reports) -> str:
    """Size and clips/s for each codec and length of shards."""
    return _layouts(reports["layout-shards"], "shard_frames", "frames of a shard")


def _layouts(report: Row, key: str, label: str) -> str:
    lines = [
        [
            row["codec"],
            f"{row[key]:,}",
            f"{row['of_raw']:.2f}",
            spread(row, "clips_per_s"),
            spread(row, "sequential_clips_per_s", "sequential_min", "sequential_max"),
        ]
        for row in report["results"]
    ]
    head = ["codec", label, "size / raw size", "random, clips/s", "sequential, clips/s"]
    return table(head, lines, report, report["store"]["repeats"])


def ranks(reports: Reports) -> str:
    """Clips/s of one process and of two, of every run."""
    lines = []
    for report in reports["ranks"]:
        one, two = (named(report["results"], name=name) for name in ("1 process", "2 processes"))
        store = report["store"]
        lines.append(
            [
                store["codec"],
                "one core" if store["one_core_each"] else "all cores",
                *(spread(row, "clips_per_s") for row in (one, two)),
                f"{two['clips_per_s'] / one['clips_per_s']:.2f}",
                str(report["machine"]["load"]),
            ]
        )
    head = ["codec", "each process has", "one process, clips/s", "two processes, clips/s", "two / one", "load"]
    repeats = reports["ranks"][0]["store"]["repeats"]
    text = table(head, lines, reports["ranks"][0], repeats)
    return text.rpartition(" Load of")[0]


def scale(reports: Reports) -> str:
    """What opening, planning and streaming take for each number of sequences."""
    report = reports["scale"]
    lines = [
        [
            f"{row['sequences']:,}",
            f"{row['open_s']:.3f}",
            f"{row['open_mib']:.0f}",
            f"{row['plan_ms']:.3f}",
            str(row["files"]),
            number(row["first_clips_per_s"]),
            spread(row, "clips_per_s"),
        ]
        for row in report["results"]
    ]
    head = ["sequences", "seconds to open", "MiB to open", "ms to plan a batch", "open files"]
    return table([*head, "clips/s at first", "clips/s later"], lines, report, report["store"]["repeats"])


def soak(reports: Reports) -> str:
    """Memory, threads and files at the first batch, after a tenth and at the end."""
    lines = [
        [
            report["store"]["codec"],
            f"{row['clips']:,}",
            f"{row['own_bytes'] / 2**20:,.0f}",
            str(row["threads"]),
            str(row["files"]),
            str(report["machine"]["load"]),
        ]
        for report in reports["soak"]
        for row in (report["results"][0], report["results"][1], report["results"][-1])
    ]
    text = table(["codec", "clips so far", "memory, MiB", "threads", "open files", "load"], lines, reports["soak"][0])
    return text.rpartition("\n\n")[0]


def speed_summary(reports: Reports) -> str:
    """The README's small table."""
    report = reports["preprocess"]
    frames = {row["name"]: number(row["frames_per_s"]) for row in report["sizes"][0]["results"]}
    clips = {row["name"]: number(row["clips_per_s"]) for row in reports["loader"][0]["results"]}
    published = str(report["published"]["frames_per_s"])
    lines = [
        f"| {report['machine']['cpu']}, {report['machine']['cores']} cores, no GPU | AttenGait | for comparison |",
        "|---|---|---|",
        f"| preprocessing, frames/s | {frames['cpu, 2 workers']} | {frames['opencv, 2 workers']} with OpenCV's flow, "
        f"{published} by the published script on one core of another machine |",
        f"| training clips/s | {clips['stream']} | {clips['npy-dataloader']} by a DataLoader over one .npy, "
        f"{clips['h5py']} over HDF5 files, {clips['pickle-dataloader']} over pickles as OpenGait does it |",
        f"| the same clips copied within memory, clips/s | | {clips['gather']} |",
    ]
    return "\n".join(lines)


def _clip_rate(reports: Reports, name: str) -> float:
    rate: float = named(reports["loader"][0]["results"], name=name)["clips_per_s"]
    return rate


def _frame_rate(reports: Reports, name: str) -> float:
    rate: float = named(reports["preprocess"]["sizes"][0]["results"], name=name)["frames_per_s"]
    return rate


def train(reports: Reports) -> str:
    """Clips/s of training, with compiled code and without, and the milliseconds of a step."""
    lines = []
    for report in reports["train"]:
        about = report["training"]
        code = "compiled" if about["has_compiler"] else "PyTorch's operations"
        for row in report["results"]:
            parts = [number(row["ms"][part]) for part in ("forward", "backward", "optimiser")]
            lines.append([f"`{about['size']}`", row["precision"], code, spread(row, "clips_per_s"), *parts])
    head = ["size", "precision", "maps are computed by", "clips/s", "ms forward", "ms backward", "ms optimiser"]
    return table(head, lines, reports["train"][-1], reports["train"][0]["training"]["repeats"])


def train_gain(reports: Reports, size: str, precision: str) -> str:
    """The time of a median step without compiled code by that with it."""
    found = [report for report in reports["train"] if report["training"]["size"] == size]
    steps_ms = {
        report["training"]["has_compiler"]: named(report["results"], precision=precision)["ms_per_step"]
        for report in found
    }
    return f"{steps_ms[False] / steps_ms[True]:.1f}"


FIGURES: dict[str, Callable[[Reports], str]] = {
    "machine": machine,
    "versions": versions,
    "speed-summary": speed_summary,
    "preprocess": preprocess,
    "preprocess-stages": preprocess_stages,
    "preprocess-sizes": preprocess_sizes,
    "flow": flow,
    "loader": loader,
    "loader-lz4": partial(loader, index=1),
    "loader-peers": loader_peers,
    "layout": layout,
    "layout-shards": layout_shards,
    "ranks": ranks,
    "scale": scale,
    "soak": soak,
    "train": train,
    **{
        f"train-gain-{size}-{precision}": partial(train_gain, size=size, precision=precision)
        for size in ("tiny", "small")
        for precision in ("fp32", "bf16")
    },
    "preprocess-rate": lambda reports: number(_frame_rate(reports, "cpu, 2 workers")),
    "preprocess-gain": lambda reports: (
        f"{_frame_rate(reports, 'cpu, 2 workers') / _frame_rate(reports, 'opencv, 2 workers'):.1f}"
    ),
    "stream-rate": lambda reports: number(_clip_rate(reports, "stream")),
    "stream-of-gather": lambda reports: f"{_clip_rate(reports, 'stream') / _clip_rate(reports, 'gather'):.2f}",
    "stream-gain-npy": lambda reports: f"{_clip_rate(reports, 'stream') / _clip_rate(reports, 'npy-dataloader'):.1f}",
    "stream-gain-pickle": lambda reports: (
        f"{_clip_rate(reports, 'stream') / _clip_rate(reports, 'pickle-dataloader'):.0f}"
    ),
    "loader-sequences": lambda reports: f"{reports['loader'][0]['store']['sequences']:,}",
    "loader-frames": lambda reports: f"{reports['loader'][0]['store']['frames']:,}",
}
"""What a marker may name."""
