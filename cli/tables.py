"""Tables as the command line shows them."""

from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Column, Table

from attengait.cli.output import cell

if TYPE_CHECKING:
    from attengait.evaluation.result import EvaluationResult


def evaluation_table(result: "EvaluationResult") -> Group:
    """A table for a rich console: probe views down, conditions across, percent; below it the notes."""
    first, *conditions = result.headings
    table = Table(Column(cell(first)))
    for heading in conditions:
        table.add_column(cell(heading), justify="right")
    *views, means = result.rows
    for row in views:
        table.add_row(*map(cell, row))
    table.add_section()
    table.add_row(*map(cell, means))
    return Group(cell(result.title), table, *map(cell, result.notes))
