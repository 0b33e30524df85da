"""What the commands print: JSON for scripts and tables for people on stdout; progress and errors go to stderr."""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from depthsieve.core.records import DatasetNote, ImageFailure
    from depthsieve.jobs.fuse.run import FuseSummary
    from depthsieve.jobs.importing.run import ImportSummary
    from depthsieve.planning.summary import LabelSummary

SHOWN_FAILURES = 20

UNITS = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"))


def print_json(value: Any, *, one_line: bool = False) -> None:
    """One JSON document on stdout; in ``one_line`` where others follow it (JSON Lines)."""
    click.echo(json.dumps(value, indent=None if one_line else 2, ensure_ascii=True, default=str))


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as their widest cell, two spaces between."""
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    for row in [head, *rows]:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def count(number: int, noun: str) -> str:
    """``1 image``, ``2 images``, ``12,000 images``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def size(count: float) -> str:
    """Bytes as people say them: ``0.8 MB``, ``76.8 GB``, ``5.2 TB``."""
    factor, unit = next(((factor, unit) for factor, unit in UNITS if count >= factor), (1e6, "MB"))
    return f"{count / factor:,.3g} {unit}"


def print_datasets(datasets: "Mapping[str, DatasetNote]") -> None:
    """For each source whose dataset is known its licence, and what that answers to three questions; a line each."""
    for source, note in datasets.items():
        click.echo(f"Dataset {note.name} (source {source}): {terms(note)}.")


def terms(note: "DatasetNote") -> str:
    """A licence, and what it answers to three questions."""
    answers = f"commercial use: {note.commercial_use}; labels may be passed on: {note.share_labels}; name the source: "
    return f"{note.licence} ({answers}{note.attribution}), {note.licence_url}"


def print_first(lines: Sequence[str], shown: int = SHOWN_FAILURES) -> None:
    """The first of a list that `--json` has whole, a line each, and how many more there are."""
    for line in lines[:shown]:
        click.echo(f"  {line}")
    if len(lines) > shown:
        click.echo(f"  ... and {len(lines) - shown:,} more; --json names all of them")


def print_failures(failures: "Sequence[ImageFailure]") -> None:
    """The first images that failed, a line each, and how many more there are."""
    print_first([f"failed: {failure.id}: {failure.reason}" for failure in failures])


def print_pace(done: str, images: int, seconds: float) -> None:
    """What was done of how many images, and how fast: ``Labelled 16 images in 3.4 s (4.65 images/s).``"""
    rate = images / max(seconds, 1e-9)
    click.echo(f"{done} {count(images, 'image')} in {seconds:.1f} s ({rate:.3g} images/s).")


def print_standing(summary: "LabelSummary | FuseSummary | ImportSummary") -> None:
    """How many images of a store are labelled."""
    total = summary.labelled + len(summary.failed) + summary.pending
    click.echo(f"{summary.store}: {summary.labelled:,} of {count(total, 'image')} labelled.")


def print_ending(summary: "FuseSummary | ImportSummary", remedy: str) -> None:
    """Which images failed, with the ``remedy``, and what is left and why."""
    print_failures(summary.failed)
    if summary.failed:
        click.echo(f"{count(len(summary.failed), 'image')} failed. {remedy}")
    for error in summary.errors:
        click.echo(f"Error: {error}", err=True)
    if summary.errors:
        click.echo(f"Error: {count(summary.pending, 'image')} left; the same command resumes.", err=True)


def print_growth(changed: int, removed: int) -> None:
    """How many images have changed since they were labelled, and how many are gone; nothing where none."""
    if changed:
        click.echo(f"{count(changed, 'image')} changed on the disk: to be labelled again.")
    if removed:
        click.echo(f"{count(removed, 'image')} no longer there: removed.")
