"""Tables as the command line shows them."""

from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Column, Table

from attengait.cli.output import cell

if TYPE_CHECKING:
    from attengait.evaluation.comparison import Comparison
    from attengait.evaluation.result import EvaluationResult


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
