"""``depthsieve fuse``: merge the labels of several stores into one."""

import dataclasses
from typing import TYPE_CHECKING

import click

from depthsieve_cli.choices import as_json_option
from depthsieve_cli.command import Verb, progress_for
from depthsieve_cli.output import count, print_ending, print_json, print_pace, print_standing

if TYPE_CHECKING:
    from depthsieve.jobs.fuse.run import FuseSummary


@click.command(
    cls=Verb,
    short_help="Merge the labels of several stores into one.",
    epilog="Example: depthsieve fuse labels-large/ labels-other/ -o fused/",
)
@click.argument("stores", nargs=-1, required=True, metavar="STORE STORE...")
@click.option("-o", "--out", required=True, metavar="FUSED", help="The store of the fused labels.")
@click.option(
    "--shard-size", type=int, default=256, show_default=True, metavar="N", help="Most images in a shard, for new ones."
)
@click.option("--threads", type=int, metavar="N", help="Images fused at a time.  [default: all cores]")
@as_json_option()
def fuse(stores: tuple[str, ...], out: str, shard_size: int, threads: int | None, as_json: bool) -> int:
    """Merge the labels of several teachers into one store.

    The STORES hold labels of different teachers for the same images; FUSED is created, or extended. The order counts:
    labels are aligned to those of the first store, so name the best teacher first. Reliability is computed from the
    disagreement of the labels and from their own reliability. Run it again to resume, or to add what was labelled
    since. Neither images nor teachers are needed.

    Exit codes: 0 all done; 1 some labels cannot be read; 3 done, but some images failed.
    """
    from depthsieve.jobs.fuse.run import fuse as run_fuse  # torch takes seconds

    summary = run_fuse(stores, out, shard_size=shard_size, threads=threads, progress=progress_for(as_json))
    if as_json:
        print_json(dataclasses.asdict(summary))
    else:
        _print_summary(summary)
    return 1 if summary.errors else 3 if summary.failed else 0


def _print_summary(summary: "FuseSummary") -> None:
    if summary.fused_now:
        print_pace("Fused", summary.fused_now, summary.seconds)
    elif not summary.errors:
        click.echo("0 images to do.")
    print_standing(summary)
    for left_out in summary.left_out:
        if left_out.images:
            named = ", ".join(left_out.first[:3]) + (", ..." if left_out.images > 3 else "")
            click.echo(
                f"{count(left_out.images, 'image')} of {left_out.store} skipped, without a label in another store: "
                f"{named}"
            )
    print_ending(summary, "The same command retries those that were relabelled since.")
