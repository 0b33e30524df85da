"""``depthsieve scan``: what there is to label, without labelling it."""

import dataclasses
from typing import TYPE_CHECKING

import click

from depthsieve.core.errors import UsageError
from depthsieve_cli.choices import as_json_option
from depthsieve_cli.command import Verb, progress_for
from depthsieve_cli.completion import recipes
from depthsieve_cli.output import count, print_failures, print_json, terms

if TYPE_CHECKING:
    from depthsieve.sources.manifest_scan import ScanSummary


@click.command(
    cls=Verb,
    short_help="List the images of sources in a manifest.",
    epilog="Example: depthsieve scan photos/ street=more/ -o photos.parquet",
)
@click.argument("sources", nargs=-1, metavar="SOURCES...")
@click.option("-o", "--out", required=True, metavar="M.parquet", help="The manifest to write, or to bring up to date.")
@click.option(
    "--root",
    metavar="DIR",
    help="What ids are relative to where a source is a list (default: the list's folder); where a --dataset lies.",
)
@click.option(
    "--dataset",
    shell_complete=recipes,
    metavar="NAME",
    help="Apply the recipe of that name (see `depthsieve datasets`), or in a FILE.toml.",
)
@click.option(
    "--exclude",
    multiple=True,
    metavar="PATTERN",
    help="Leave out files that fit, such as depth/ or '*_mask.png' (repeatable; remembered; none forgets).",
)
@click.option("--every", type=int, metavar="N", help="Of videos, take every N-th frame (remembered).")
@click.option("--fps", type=float, metavar="RATE", help="Of videos, take this many frames a second (remembered).")
@click.option("--duplicates", is_flag=True, help="Read every file whole, and mark images whose bytes are equal.")
@as_json_option()
def scan(
    sources: tuple[str, ...],
    out: str,
    root: str | None,
    dataset: str | None,
    exclude: tuple[str, ...],
    every: int | None,
    fps: float | None,
    duplicates: bool,
    as_json: bool,
) -> int:
    """List the images of SOURCES into a manifest, for `depthsieve label M.parquet STORE`.

    A source is a folder, an image, a video, an archive (.tar, .zip), a .parquet, .arrow or HDF5 file with images, a
    list of files (.txt, or - for standard input), or s3://bucket/prefix; NAME=PATH gives it a name, and those without a
    name are one. Only headers are read. Run it again after a crash, or when files have changed: known files are not
    opened again.

    With --dataset NAME --root DIR the source is that dataset: only files that its recipe counts, held against how many
    there should be, with its terms, which go with the labels.
    """
    from depthsieve.sources.manifest_scan import scan as run_scan

    places = _places(sources, root, dataset)
    root = None if dataset is not None else root
    summary = run_scan(
        places,
        out,
        progress=progress_for(as_json),
        root=root,
        duplicates=duplicates,
        dataset=dataset,
        exclude=exclude,
        every=every,
        fps=fps,
    )
    if as_json:
        print_json(dataclasses.asdict(summary))
    else:
        _print_summary(summary)
    return 3 if summary.rejected else 0


def _places(sources: tuple[str, ...], root: str | None, dataset: str | None) -> tuple[str, ...]:
    if dataset is None:
        if not sources:
            raise UsageError("name at least one source to scan, or a --dataset and where it lies: --root DIR")
        return sources
    if len(sources) + (root is not None) != 1:
        raise UsageError("say where the --dataset lies, once: --root DIR")
    return sources or (str(root),)


def _print_summary(summary: "ScanSummary") -> None:
    rate = f" ({summary.opened / max(summary.seconds, 1e-9):,.0f} a second)" if summary.opened else ""
    click.echo(f"{summary.manifest}: {count(summary.images, 'image')}.")
    click.echo(f"Opened {count(summary.opened, 'file')} in {summary.seconds:.1f} s{rate}.")
    if summary.changed:
        click.echo(f"{count(summary.changed, 'file')} had changed.")
    if summary.duplicates is not None:
        click.echo(f"{count(summary.duplicates, 'image')} equal to another one, marked in duplicate_of.")
    if summary.skipped_hidden or summary.skipped_other:
        hidden, other = count(summary.skipped_hidden, "hidden file"), count(summary.skipped_other, "file")
        click.echo(f"Passed over {hidden}, and {other} of other kinds.")
    if summary.exclude:
        left_out, patterns = count(summary.excluded, "file"), " ".join(summary.exclude)
        click.echo(f"Left out {left_out} by --exclude {patterns}, which the manifest remembers.")
    for note in summary.notes:
        click.echo(f"Note: {note}", err=True)
    if summary.dataset is not None:
        click.echo(summary.verdict if summary.complete else f"Note: {summary.verdict}", err=not summary.complete)
        click.echo(f"Terms: {terms(summary.dataset)}.\n{summary.dataset.consequences}")
    print_failures(summary.rejects)
    if summary.rejected:
        click.echo(f"{count(summary.rejected, 'file')} cannot be labelled; {summary.rejects_file} has them all.")
