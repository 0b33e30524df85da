"""``depthsieve plan``: what labelling would take, and fixing the plan for others to share."""

import dataclasses
from typing import Any

import click

from depthsieve_cli.choices import planning_choices
from depthsieve_cli.output import count, print_failures, print_json


@click.command(epilog="Example: depthsieve plan photos/ labels/ --teacher tiny --write")
@planning_choices
@click.option("--write", is_flag=True, help="Fix the plan in STORE, for `depthsieve label --part` to share.")
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON; no progress bar.")
def plan(source: str, store: str, write: bool, as_json: bool, **options: Any) -> int:
    """Say what it takes to label the images of SOURCE into STORE: images, shards, bytes.

    Nothing is written without --write. With it the plan stands, and any number of `depthsieve label --part` may work on
    it at once.
    """
    from depthsieve.run import plan as run_plan  # torch and transformers take seconds

    summary = run_plan(source, store, write=write, progress=not as_json, **options)
    if as_json:
        print_json(dataclasses.asdict(summary))
        return 3 if summary.rejected else 0
    free = "" if summary.free_bytes is None else f"; {summary.free_bytes / 1e9:,.3g} GB are free"
    click.echo(
        f"{summary.store}: {count(summary.images, 'image')} to label in {count(summary.shards, 'shard')}, about "
        f"{summary.bytes / 1e9:,.3g} GB{free}."
    )
    print_failures(summary.rejected)
    if summary.written:
        click.echo("The plan is written. Share it: depthsieve label SOURCE STORE --part I/N, for each I of 1 to N.")
    else:
        click.echo("Nothing was written. --write fixes the plan; `depthsieve label` plans and labels in one.")
    return 3 if summary.rejected else 0
