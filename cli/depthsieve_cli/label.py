"""``depthsieve label``: the main job."""

import dataclasses
import shlex
from typing import TYPE_CHECKING, Any

import click

from depthsieve.core.progress import say
from depthsieve.core.stopping import Stop
from depthsieve.planning.options import PLACE, LabelOptions
from depthsieve_cli.choices import (
    GroupedCommand,
    allow_failed_option,
    as_json_option,
    from_settings,
    option,
    source_and_store,
)
from depthsieve_cli.command import is_quiet, note, progress_for
from depthsieve_cli.interrupt import graceful
from depthsieve_cli.output import count, print_failures, print_growth, print_json, print_pace, print_standing
from depthsieve_cli.stdin import keep_stdin
from depthsieve_cli.supervise import supervise

if TYPE_CHECKING:
    from depthsieve.planning.summary import LabelSummary


@click.command(
    cls=GroupedCommand,
    short_help="Label images into a store; resumes, and adds what is new.",
    epilog="Example: depthsieve label photos/ labels/ --teacher tiny",
)
@source_and_store
@from_settings(LabelOptions)
@option(
    PLACE,
    "--grace",
    type=click.FloatRange(min=0),
    default=20,
    show_default=True,
    metavar="SECONDS",
    help="When interrupted, how long to go on with shards that can be finished.",
)
@allow_failed_option()
@as_json_option()
def label(source: str, store: str, grace: float, allow_failed: bool, as_json: bool, **options: Any) -> int:
    """Label the images of SOURCE into STORE, a folder or s3://bucket/prefix.

    SOURCE is a folder, an image, a video, an archive (.tar, .zip), a .parquet or HDF5 file with images, a list (.txt,
    or - for standard input), s3://bucket/prefix, or a manifest that `depthsieve scan` wrote.

    Resumes by itself: run it again after a crash, or when there are new images. Images that have changed since are
    labelled again; what is labelled stays as it is otherwise.
    """
    keep_stdin(source)
    supervise(store)  # from here on in a process of its own
    stop = Stop(grace)
    progress = progress_for(as_json)
    say("Loading the teacher.", shown=progress)
    with graceful(stop):
        from depthsieve.jobs.label import label as run_label  # torch and transformers take seconds

        summary = run_label(source, store, progress=progress, stop=stop, **options)
    if as_json:
        print_json(dataclasses.asdict(summary))
    else:
        _print_summary(summary)
        if summary.labelled_now and options["part"] is None and not is_quiet():
            click.echo(f"See them: depthsieve view {shlex.quote(store)}")
    if summary.interrupted:
        return 4
    if summary.errors:
        return 1
    not_done = summary.failed or summary.not_stored or summary.not_scaled
    return 3 if not_done and not allow_failed else 0


def _print_summary(summary: "LabelSummary") -> None:
    for line in summary.notes:
        note(line)
    print_growth(summary.changed, summary.removed)
    if summary.labelled_now:
        print_pace("Labelled", summary.labelled_now, summary.seconds)
    elif not (summary.errors or summary.planned_now or summary.stored_now or summary.scaled_now or summary.removed):
        click.echo("0 images to do.")
    print_standing(summary)
    if summary.stored_now:
        click.echo(f"Stored {count(summary.stored_now, 'image')} of what was labelled before.")
    if summary.not_stored:
        print_failures(summary.not_stored)
        number = count(len(summary.not_stored), "labelled image")
        click.echo(f"{number} could not be stored. The same command with --retry-failed tries again.")
    if summary.scaled_now:
        click.echo(f"Fitted {count(summary.scaled_now, 'label')} from before to metres.")
    if summary.not_scaled:
        print_failures(summary.not_scaled)
        number = count(len(summary.not_scaled), "label")
        click.echo(f"{number} could not be fitted. The same command with --retry-failed tries again.")
    if summary.skipped_hidden or summary.skipped_other:
        hidden, other = count(summary.skipped_hidden, "hidden file"), count(summary.skipped_other, "file")
        click.echo(f"Passed over {hidden}, and {other} of other kinds.")
    print_failures(summary.failed)
    if summary.failed:
        click.echo(f"{count(len(summary.failed), 'image')} failed. The same command with --retry-failed tries again.")
    for error in summary.errors:
        click.echo(f"Error: {error}", err=True)
    if summary.interrupted:
        click.echo(f"Interrupted: {_left(summary)}; run the same command again to resume.", err=True)
    elif summary.errors:
        click.echo(f"Error: {_left(summary)}; run the same command again to resume.", err=True)


def _left(summary: "LabelSummary") -> str:
    """What is left of a run that had to end."""
    if not summary.pending:
        return "images or metres of some shards are not there yet"
    lost = f", {summary.discarded:,} of them discarded with a shard that was not finished" if summary.discarded else ""
    return f"{count(summary.pending, 'image')} left{lost}"
