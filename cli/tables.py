"""Tables as the command line shows them."""

from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Column, Table

from attengait.cli.output import cell

if TYPE_CHECKING:
    from attengait.evaluation.comparison import Comparison
    from attengait.evaluation.result import EvaluationResult
    from attengait.pipelines.controls import ControlRow


def evaluation_table(result: "EvaluationResult | Comparison") -> Group:
    """A table for a rich console: title, headings, rows and notes of a result. A last row of means stands apart."""
    first, *conditions = result.headings
    table = Table(Column(cell(first)))
    for heading in conditions:
        table.add_column(cell(heading), justify="right")
    for row in result.rows:
        if row[0] == "mean":
            table.add_section()
        table.add_row(*map(cell, row))
    return Group(cell(result.title), table, *map(cell, result.notes))


def controls_table(rows: "list[ControlRow]") -> Group:
    """A table of a model and its controls for a rich console: rank-1 by condition, intervals, how far it is ahead."""
    from attengait.evaluation.comparison import signed
    from attengait.evaluation.result import percent

    first = rows[0].result
    table = Table(Column(cell("rank-1 in %")), collapse_padding=True, pad_edge=False)
    for heading in (*first.conditions, "mean", "95 %", "model ahead by"):
        table.add_column(cell(heading), justify="right")
    for row in rows:
        assert row.result.intervals is not None
        low, high = (percent(end) for end in row.result.intervals["metrics"]["rank1"])
        figures = [percent(of_condition["rank1"]) for of_condition in row.result.conditions.values()]
        ahead = (
            ""
            if row.ahead is None
            else "{} ({} to {})".format(*map(signed, (row.ahead.difference, *row.ahead.interval)))
        )
        table.add_row(*map(cell, (row.name, *figures, percent(row.result.mean), f"{low} to {high}", ahead)))
    table.add_row(*map(cell, ("chance", *[percent(first.chance)] * (len(first.conditions) + 1), "", "")))
    assert first.intervals is not None
    note = f"intervals: {first.intervals['resamples']} resamples of {first.intervals['subjects']} subjects"
    return Group(table, cell(note))
