"""The `runs`, `attention` and `map` commands: which runs there are, what a network looks at, what it tells apart."""

import json
from datetime import datetime
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Column, Table

from attengait.cli.options import FeatureOrderOption
from attengait.cli.output import cell, say, say_json, say_table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from attengait.training.run_list import RunStatus

_NONE = "-"
_MAX_STATE_LETTERS = 60


def runs(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder with runs in it, or below.")],
    value: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Print this value of all runs step by step, such as validation/rank1, with its mean and standard "
            "deviation over the runs.",
            show_default="none",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """List the runs in a folder: how far each is, its last loss, its best validation, and how it ended."""
    from attengait.training.run_list import list_runs, values_by_step

    if value is not None:
        names, by_step = values_by_step(folder, value)
        if as_json:
            say_json(json.dumps({"value": value, "runs": names, "by_step": by_step}, indent=2))
        else:
            say_table(values_table(value, names, by_step))
        return
    found = list_runs(folder)
    if as_json:
        say_json(json.dumps([run.to_dict() for run in found], indent=2))
        return
    if not found:
        say(f"{folder} holds no runs")
        return
    say_table(runs_table(found))


def attention(
    model: Annotated[Path, typer.Argument(metavar="RUN", help="A run, or a file of weights.")],
    out: Annotated[Path, typer.Option(help="PNG file to write.")],
    store: Annotated[
        str | None,
        typer.Argument(metavar="[STORE]", help="A store, whose pictures lie below the attention.", show_default="none"),
    ] = None,
    rows: Annotated[int, typer.Option(help="How many sequences of the store, evenly picked.")] = 3,
) -> None:
    """Draw what a network attends to: patches of the picture in each layer, and parts of the body."""
    from attengait.pipelines.attention import show_attention

    found = show_attention(model, out, store=store, rows=rows)
    for number, layer in enumerate(found.layers, 1):
        say(f"layer {number}: {layer}")
    say(str(out))


def embedding_map(
    embeddings: Annotated[Path, typer.Argument(metavar="FILE", help="NPZ file of `attengait embed`.")],
    out: Annotated[Path, typer.Option(help="PNG file to write.")],
    feature_order: FeatureOrderOption = None,
    most: Annotated[int, typer.Option(help="Of more sequences, so many are drawn, chosen at random.")] = 5000,
    seed: Annotated[int, typer.Option(help="Of what is random. The same seed gives the same picture.")] = 0,
) -> None:
    """Draw embeddings in two dimensions by t-SNE, coloured by subject and by view."""
    from attengait.evaluation import load_embeddings
    from attengait.evaluation.embeddings import feature_orders
    from attengait.report.embedding_map import map_embeddings
    from attengait.report.figure import check_figure

    check_figure(out, "out", (embeddings,))
    (order,) = feature_orders([embeddings], feature_order).values()
    drawn = map_embeddings(load_embeddings(embeddings, feature_order=order), out, most=most, seed=seed)
    grey = f", {drawn.num_grey} more are grey" if drawn.num_grey else ""
    say(f"{out}: {len(drawn.rows):,} sequences; {len(drawn.coloured)} subjects have a colour{grey}")


def values_table(value: str, names: list[str], by_step: "Mapping[int, list[float | None]]") -> Table:
    """A row for each step: the value of each run, and mean and standard deviation where two runs or more have it."""
    numbers = [Column(cell(name), justify="right") for name in (*names, "mean", "deviation")]
    table = Table(Column("step", justify="right"), *numbers, title=cell(value))
    for step, values in by_step.items():
        present = [each for each in values if each is not None]
        spread = (mean(present), stdev(present)) if len(present) > 1 else (None, None)
        figures = (_NONE if each is None else f"{each:.3f}" for each in (*values, *spread))
        table.add_row(*map(cell, (f"{step:,}", *figures)))
    return table


def runs_table(found: "list[RunStatus]") -> Table:
    """A row for each run."""
    numbers = [Column(name, justify="right") for name in ("steps", "loss", "best rank-1")]
    table = Table(Column("run", overflow="fold"), *numbers, Column("last heard", no_wrap=True), "state")
    for run in found:
        table.add_row(
            cell(run.path),
            cell(_NONE if run.step is None else f"{run.step:,} of {_whole(run.num_steps)}"),
            cell(_NONE if run.loss is None else f"{run.loss:.3f}"),
            cell(_NONE if run.best_rank1 is None else f"{100 * run.best_rank1:.1f} % at {_whole(run.best_step)}"),
            cell(_minute(run.ended)),
            cell(run.state if len(run.state) <= _MAX_STATE_LETTERS else f"{run.state[:_MAX_STATE_LETTERS]}..."),
        )
    return table


def _whole(number: int | None) -> str:
    return _NONE if number is None else f"{number:,}"


def _minute(time: str | None) -> str:
    """In the time zone of this machine."""
    return _NONE if time is None else f"{datetime.fromisoformat(time).astimezone():%Y-%m-%d %H:%M}"
