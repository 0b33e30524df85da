"""``depthsieve label``: the main job."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from depthsieve.options import SIGNALS, LabelOptions
from depthsieve_cli.output import count, print_json

if TYPE_CHECKING:
    from depthsieve.options import LabelSummary

SHOWN_FAILURES = 20
DEFAULTS = LabelOptions()


@click.command(epilog="Example: depthsieve label photos/ labels/ --teacher tiny")
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("store", type=click.Path(path_type=Path))
@click.option(
    "--teacher",
    default=DEFAULTS.teacher,
    show_default=True,
    metavar="NAME",
    help="Preset (see `depthsieve teachers`), hub id, or local folder.",
)
@click.option("--revision", metavar="REV", help="Commit, tag or branch of a hub checkpoint.")
@click.option(
    "--size", type=int, metavar="PIXELS", help="Short side the teacher works at.  [default: the teacher's own]"
)
@click.option("--device", default=DEFAULTS.device, show_default=True, help="auto, cpu, cuda, cuda:1, ...")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    default=DEFAULTS.dtype,
    show_default=True,
    help="Numbers the teacher computes in; decides the labels.",
)
@click.option("--batch-size", type=int, metavar="N", help="Images a forward pass.  [default: found by a short trial]")
@click.option(
    "--threads", type=int, metavar="N", help="Threads of one worker.  [default: all cores, shared by workers]"
)
@click.option(
    "--shard-size",
    type=int,
    default=DEFAULTS.shard_size,
    show_default=True,
    metavar="N",
    help="Most images in a shard, for images added now.",
)
@click.option(
    "--signals",
    default=DEFAULTS.signals,
    show_default=True,
    metavar="LIST",
    help=f"What reliability is made of: {', '.join(SIGNALS)}. With none, every pixel counts as reliable.",
)
@click.option(
    "--max-tokens",
    type=int,
    default=DEFAULTS.max_tokens,
    show_default=True,
    metavar="N",
    help="Most patches an image may take.",
)
@click.option(
    "--oversize",
    type=click.Choice(["reject", "shrink"]),
    default=DEFAULTS.oversize,
    show_default=True,
    help="What to do with images above --max-tokens.",
)
@click.option(
    "--runner",
    type=click.Choice(["auto", "local", "ray"]),
    default=DEFAULTS.runner,
    show_default=True,
    help="local: this process. ray: worker processes. auto: ray for an address, several workers or GPUs.",
)
@click.option("--workers", type=int, metavar="N", help="Ray workers.  [default: one a GPU]")
@click.option("--address", metavar="ADDR", help="A running Ray cluster.  [default: a private one on this machine]")
@click.option("--name", default=DEFAULTS.name, show_default=True, help="Name of this source within the store.")
@click.option("--moved", is_flag=True, help="The images of this source have moved to SOURCE.")
@click.option("--retry-failed", is_flag=True, help="Try the images again that stand failed.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON; no progress bar.")
def label(source: Path, store: Path, as_json: bool, **options: Any) -> int:
    """Label the images of SOURCE (a folder or one file) into STORE.

    Resumes by itself: run it again after a crash, or when there are new images. What is labelled stays as it is.
    """
    from depthsieve.run import label as run_label  # torch and transformers take seconds

    summary = run_label(source, store, progress=not as_json, **options)
    if as_json:
        print_json(dataclasses.asdict(summary))
    else:
        _print_summary(summary)
    if summary.errors:
        return 1
    return 3 if summary.failed else 0


def _print_summary(summary: "LabelSummary") -> None:
    for note in summary.notes:
        click.echo(f"Note: {note}", err=True)
    total = summary.labelled + len(summary.failed) + summary.pending
    if summary.labelled_now:
        rate = summary.labelled_now / max(summary.seconds, 1e-9)
        click.echo(f"Labelled {count(summary.labelled_now, 'image')} in {summary.seconds:.1f} s ({rate:.3g} images/s).")
    elif not summary.errors and not summary.planned_now:
        click.echo("0 images to do.")
    click.echo(f"{summary.store}: {summary.labelled:,} of {count(total, 'image')} labelled.")
    if summary.skipped_hidden or summary.skipped_other:
        hidden, other = count(summary.skipped_hidden, "hidden file"), count(summary.skipped_other, "file")
        click.echo(f"Passed over {hidden}, and {other} of other kinds.")
    for failure in summary.failed[:SHOWN_FAILURES]:
        click.echo(f"  failed: {failure.id}: {failure.reason}")
    if len(summary.failed) > SHOWN_FAILURES:
        click.echo(f"  ... and {len(summary.failed) - SHOWN_FAILURES:,} more; --json names all of them")
    if summary.failed:
        click.echo(f"{count(len(summary.failed), 'image')} failed. The same command with --retry-failed tries again.")
    for error in summary.errors:
        click.echo(f"Error: {error}", err=True)
    if summary.errors:
        click.echo(f"Error: {count(summary.pending, 'image')} left; the same command goes on.", err=True)
