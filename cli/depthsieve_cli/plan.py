"""``depthsieve plan``: what labelling would take, and fixing the plan for others to share."""

import dataclasses
from typing import TYPE_CHECKING, Any

import click

from depthsieve.core.progress import say
from depthsieve.planning.options import LabelOptions
from depthsieve_cli.choices import (
    OUTPUT,
    GroupedCommand,
    allow_failed_option,
    as_json_option,
    from_settings,
    option,
    source_and_store,
)
from depthsieve_cli.command import progress_for
from depthsieve_cli.output import count, print_failures, print_growth, print_json, size
from depthsieve_cli.stdin import keep_stdin

if TYPE_CHECKING:
    from depthsieve.planning.summary import PlanSummary


@click.command(
    cls=GroupedCommand,
    short_help="Say what labelling takes: images, shards, bytes, hours.",
    epilog="Example: depthsieve plan photos/ labels/ --teacher tiny --write",
)
@source_and_store
@from_settings(LabelOptions, without=["part"])
@option(OUTPUT, "--write", is_flag=True, help="Fix the plan in STORE, for `depthsieve label --part` to share.")
@option(
    OUTPUT,
    "--trial/--no-trial",
    default=True,
    show_default=True,
    help="Label some images to learn how long it takes.",
)
@allow_failed_option()
@as_json_option("the plan")
def plan(source: str, store: str, write: bool, trial: bool, allow_failed: bool, as_json: bool, **options: Any) -> int:
    """Say what it takes to label the images of SOURCE into STORE: images, shards, bytes, hours.

    Nothing is written without --write. With it the plan stands, and any number of `depthsieve label --part` may work on
    it at once.
    """
    keep_stdin(source)
    progress = progress_for(as_json)
    say("Loading the teacher.", shown=progress)
    from depthsieve.jobs.label import plan as run_plan  # torch and transformers take seconds

    of_failed = 0 if allow_failed else 3
    summary = run_plan(source, store, write=write, trial=trial, progress=progress, **options)
    if as_json:
        print_json(dataclasses.asdict(summary))
        return of_failed if summary.rejected else 0
    for note in summary.notes:
        click.echo(f"Note: {note}", err=True)
    _print_summary(summary)
    print_failures(summary.rejected)
    if summary.written:
        click.echo("The plan is written. Share it: depthsieve label SOURCE STORE --part I/N, for each I of 1 to N.")
    else:
        click.echo("Nothing was written. --write fixes the plan; `depthsieve label` plans and labels in one.")
    return of_failed if summary.rejected else 0


def _print_summary(summary: "PlanSummary") -> None:
    free = "" if summary.free_bytes is None else f"; {size(summary.free_bytes)} are free"
    span = "" if summary.bytes_range is None else f" ({size(summary.bytes_range[0])} to {size(summary.bytes_range[2])})"
    click.echo(
        f"{summary.store}: {count(summary.images, 'image')} to label in {count(summary.shards, 'shard')}, about "
        f"{size(summary.bytes)}{span}{free}."
    )
    print_growth(summary.changed, summary.removed)
    if summary.worker_hours is None:
        return
    took = f"{_duration(summary.worker_hours)} of workers"
    if summary.hours and summary.workers:
        took = f"{_duration(summary.hours)} with {count(summary.workers, 'worker')}"
    on_gpus = f", {_span(summary.gpu_hours)} GPU-hours" if summary.gpu_hours else ""
    click.echo(f"About {took}{on_gpus}, judging by {count(summary.tried, 'image')}.")


def _duration(hours: tuple[float, float, float]) -> str:
    """Hours, minutes or seconds, as fits: "12 min (10 to 14)"."""
    factor, unit = (1, "h") if hours[1] >= 2 else (60, "min") if hours[1] >= 2 / 60 else (3600, "s")
    low, likely, high = (_rounded(value * factor) for value in hours)
    return f"{likely} {unit} ({low} to {high})"


def _rounded(value: float) -> str:
    return f"{value:,.0f}" if value >= 9.95 else f"{value:.1f}".removesuffix(".0")


def _span(values: tuple[float, float, float]) -> str:
    low, likely, high = values
    return f"{likely:,.3g} ({low:,.3g} to {high:,.3g})"
