"""The `benchmark` commands: a table, then one line of JSON."""

import typer

app = typer.Typer(help="Measure throughput on this machine: medians and spread, last line JSON.", no_args_is_help=True)
