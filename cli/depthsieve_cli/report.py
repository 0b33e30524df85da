"""``depthsieve report``: a page to look at a store with."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from depthsieve_cli.choices import as_json_option
from depthsieve_cli.command import Verb, note, progress_for
from depthsieve_cli.opening import open_file
from depthsieve_cli.output import count, print_failures, print_json, size

if TYPE_CHECKING:
    from depthsieve.report.write import ReportSummary


@click.command(
    cls=Verb,
    short_help="Write a page to look at labels and masks; opens from disk.",
    epilog="Example: depthsieve report labels/ -o report/ --open",
)
@click.argument("store")
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), metavar="DIR", help="Folder for the page.")
@click.option("--images", default=300, show_default=True, metavar="N", help="How many images the gallery has.")
@click.option(
    "--drop", type=float, default=0.10, show_default=True, help="Share of the pixels that is masked at first."
)
@click.option("--reliability", metavar="NAME", help="Show a layer of recalibrate, not the labels' own reliability.")
@click.option(
    "--subset",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Show what a subset of `curate` dropped, and why.",
)
@click.option("--evaluation", metavar="DIR", help="Show accuracy and curves: what `evaluate STORE -o DIR` wrote.")
@click.option("--compare", metavar="OTHER", help="Show another store beside STORE, on the images that both have.")
@click.option("--compare-evaluation", metavar="DIR", help="What `evaluate OTHER -o DIR` wrote.")
@click.option("--open", "show", is_flag=True, help="Open the page in the browser.")
@as_json_option()
def report(store: str, out: Path, show: bool, as_json: bool, **options: Any) -> int:
    """Write a page that shows STORE: figures, and a gallery with depth, reliability and the mask under a slider.

    The page opens from disk, without a server or a network. Of a large store the gallery has a part, figures are of all
    images. Run again, it replaces the report in DIR.

    Exit codes: 0 done; 1 could not do it; 2 wrong options; 3 done, but some labels could not be read.
    """
    from depthsieve.report.write import report_labels  # torch takes seconds

    summary = report_labels(store, out, progress=progress_for(as_json), **options)
    if as_json:
        print_json(dataclasses.asdict(summary))
    else:
        _print(summary)
    if show and (problem := open_file(Path(summary.page))):
        note(problem)
    return 3 if summary.unreadable else 0


def _print(summary: "ReportSummary") -> None:
    shown = f"{summary.shown:,} of {count(summary.images, 'labelled image')}"
    click.echo(f"{summary.store}: {shown} in the gallery, {size(summary.bytes)}.")
    for line in summary.notes:
        click.echo(f"Note: {line}.")
    if summary.without_photo:
        first = summary.without_photo[0]
        click.echo(f"{count(len(summary.without_photo), 'photo')} cannot be read; the first: {first.reason}.")
    print_failures(summary.unreadable)
    click.echo(f"Open {summary.page}")
