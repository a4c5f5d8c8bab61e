"""The `demo` command: the whole journey on synthetic walkers, from frames to a table, into one folder.

Training and test subjects are disjoint people. docs/demo.md says how the settings were chosen.
"""

import json
import time
from pathlib import Path
from typing import Annotated, Literal

import typer

import attengait
from attengait.cli.options import WorkersOption
from attengait.cli.output import say, say_lines, say_table
from attengait.cli.progress import ProgressLine
from attengait.cli.tables import controls_table, evaluation_table
from attengait.cli.train import train_with_line
from attengait.system.files import note_settings, write_atomically
from attengait.system.machine import usable_cores
from attengait.system.progress import duration

IDENTITY: Literal["rhythm"] = "rhythm"
"""Walkers that are hard to tell apart by single pictures: see docs/demo.md."""
TRAINING_SUBJECTS = range(1, 17)
TEST_SUBJECTS = range(17, 37)
WALKS = ("nm-01", "nm-02", "nm-05", "nm-06", "bg-01", "bg-02", "cl-01", "cl-02")
FRAMES = 40
VIEWS = (80, 100)


def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything that is made.")] = Path("demo"),
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Train for longer (or shorter) than the preset.", show_default="preset")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="The seed of the walkers and of the training.")] = 0,
    workers: WorkersOption = None,
) -> None:
    """Run the whole chain on synthetic walkers, to the table of people never seen. It takes a quarter of an hour or
    less on two cores, without a GPU.

    It can be stopped or killed at any moment: the same command continues.
    """
    from attengait.evaluation.embeddings import save_embeddings
    from attengait.kernels.flow.backends import AUTO
    from attengait.pipelines.controls import compare_controls, control_embeddings
    from attengait.pipelines.embed import embed
    from attengait.pipelines.preprocess.run import choose_executor
    from attengait.preprocessing.flow import FlowRecipe
    from attengait.preprocessing.flow_choice import choose_flow
    from attengait.report.contact_sheet import contact_sheet
    from attengait.store import open_store
    from attengait.store.layout import work_path
    from attengait.training.config import load_preset, make_config

    started_seconds = time.monotonic()
    processes = workers if workers is not None else usable_cores()
    settings = {**load_preset("demo"), "train_subjects": [_span(TRAINING_SUBJECTS)], "seed": seed}
    config = make_config(settings | ({} if epochs is None else {"epochs": epochs}))
    walkers, store, run = out / "walkers", out / "walkers.zarr", out / "run"
    out.mkdir(parents=True, exist_ok=True)
    made_with = {"seed": seed, "frames": FRAMES, "views": VIEWS, "identity": IDENTITY}
    note_settings(out / "demo.json", made_with, "--out")

    if not (store.exists() or work_path(store).exists()):  # preprocessing begins when the walkers are complete
        _make_walkers(walkers, seed, processes)
    recipe = FlowRecipe(flow=choose_flow(AUTO, store))
    with ProgressLine() as line:
        summary = attengait.preprocess(
            "casia-b",
            store,
            frames=walkers / "rgb",
            silhouettes=walkers / "silh",
            recipe=recipe,
            executor=choose_executor(recipe, workers=processes),
            progress=line,
        )
    say_lines(summary)
    sheet = out / "contact-sheet.png"
    contact_sheet(open_store(store), sheet, num_rows=12, num_frames=12)

    resume = (run / "checkpoint.pt").exists()
    train_with_line([store], run, config, resume=resume, how_to_continue="the same command continues")
    with ProgressLine() as line:
        embeddings = embed(run, store, progress=line)
        controls = control_embeddings(run, open_store(store), progress=line)
    save_embeddings(out / "embeddings.npz", embeddings)
    rows = compare_controls(embeddings, controls)
    table = rows[0].result
    content = table.to_dict() | {"controls": [row.to_dict() for row in rows]}
    write_atomically(out / "table.json", (json.dumps(content, indent=2) + "\n").encode())

    say_table(evaluation_table(table))
    say_table(controls_table(rows))
    say(
        f"trained on subjects {_span(TRAINING_SUBJECTS)}; recognised subjects {_span(TEST_SUBJECTS)}, never seen; "
        f"{duration(time.monotonic() - started_seconds)} in all"
    )
    for path, what in (
        (walkers, "frames and silhouettes, laid out as CASIA-B does"),
        (store, "optical flow, one Zarr store"),
        (sheet, "what the model sees"),
        (run, "settings, weights, TensorBoard scalars"),
        (out / "embeddings.npz", "features of the test subjects"),
        (out / "table.json", "the table above"),
    ):
        say(f"  {path}  {what}")


def _make_walkers(out: Path, seed: int, workers: int) -> None:
    from attengait.synth import SynthConfig, write_walkers

    config = SynthConfig(
        subjects=(*TRAINING_SUBJECTS, *TEST_SUBJECTS),
        walks=WALKS,
        views=VIEWS,
        frames=FRAMES,
        seed=seed,
        identity=IDENTITY,
        workers=workers,
    )
    with ProgressLine() as line:
        write_walkers(out, config, progress=line)


def _span(subjects: range) -> str:
    return f"{subjects.start:03d}-{subjects.stop - 1:03d}"
