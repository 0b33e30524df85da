"""``depthsieve curate``: choose the images worth training on, each other one with its reason."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from depthsieve.curation.settings import CUTS, NEAR_DUPLICATES, CurateSettings
from depthsieve_cli.choices import as_json_option
from depthsieve_cli.command import Verb, progress_for
from depthsieve_cli.completion import ids
from depthsieve_cli.output import print_json, print_table

if TYPE_CHECKING:
    from depthsieve.curation.curating import CurateSummary, Explanation

DEFAULTS = CurateSettings()
HELP = {
    "min_size": ("PIXELS", "Shorter side of the source image."),
    "max_dark": ("SHARE", "Of the pixels, nearly black."),
    "max_bright": ("SHARE", "Of the pixels, blown out."),
    "min_detail": ("LEVELS", "Local contrast, of 255: walls and black images have none."),
    "min_sharpness": ("SHARE", "0..1; blurred images are low."),
    "max_text": ("RATIO", "Finest detail over coarser; pages of text are high."),
    "min_colourfulness": ("NUMBER", "0 is grey, 45 quite colourful."),
    "min_depth_range": ("SHARE", "0..1; 0 is a label of one depth."),
    "max_flatness": ("SHARE", "0..1; 1 is a label that is one plane."),
    "max_sky": ("SHARE", "Of the label, sky or as far."),
    "min_reliability": ("CODE", "Mean reliability, 1..255."),
    "max_unreliable": ("SHARE", "Of the pixels, under the dataset's threshold for --drop."),
}


def cut_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """An option for each cut."""
    for cut in reversed(CUTS):
        metavar, words = HELP[cut.option]
        faulty = "" if cut.faulty is None else f"  [with --faulty: {cut.faulty:g}]"
        name = f"--{cut.option.replace('_', '-')}"
        command = click.option(name, type=float, metavar=metavar, help=words + faulty)(command)
    return command


@click.command(
    cls=Verb,
    short_help="Choose the images worth training on; each drop has a reason.",
    epilog="Example: depthsieve curate labels/ -o subset.parquet --faulty --near-duplicates --max 100000",
)
@click.argument("store")
@click.option(
    "-o", "--out", "subset", type=click.Path(path_type=Path), metavar="SUBSET", help="File to write (.parquet)."
)
@click.option("--dry-run", is_flag=True, help="Write nothing; show what would be kept.")
@click.option("--where", metavar="SQL", help="An expression over the columns of the index, such as 'sky < 0.5'.")
@click.option("--faulty", is_flag=True, help="Drop dark, bright, blurred and featureless images and pages of text.")
@cut_options
@click.option(
    "--near-frames",
    type=float,
    metavar="SIMILARITY",
    help="Of each clip in time, drop frames at least this similar (0..1) to the last one kept.",
)
@click.option(
    "--near-duplicates",
    type=float,
    is_flag=False,
    flag_value=NEAR_DUPLICATES,
    metavar="[SIMILARITY]",
    help=f"Of images at least this similar (0..1), keep the best.  [without a number: {NEAR_DUPLICATES:g}]",
)
@click.option(
    "--keep",
    default=DEFAULTS.keep,
    show_default=True,
    metavar="LIST",
    help="What decides which near-duplicate stays, in order.",
)
@click.option(
    "--crops/--no-crops",
    default=DEFAULTS.crops,
    show_default=True,
    help="Find near-duplicates that show a part of one another; reads images that are somewhat alike again.",
)
@click.option("--balance", metavar="CLUSTERS|sources", help="At most --cap images of each cluster, or of each source.")
@click.option("--cap", type=int, metavar="N", help="For --balance.")
@click.option("--max", "max_images", type=int, metavar="N", help="Keep the N most diverse.")
@click.option(
    "--drop", type=float, default=DEFAULTS.drop, show_default=True, help="Share of pixels that training will mask."
)
@click.option("--reliability", metavar="NAME", help="Go by a layer that recalibrate made.")
@click.option(
    "--explain",
    metavar="ID",
    shell_complete=ids,
    help="Say why this image is in or out, with these options; writes nothing.",
)
@as_json_option("the funnel")
def curate(
    store: str,
    subset: Path | None,
    dry_run: bool,
    reliability: str | None,
    explain: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Choose the images of STORE that are worth training on.

    Every other image gets the reason why it is left out.

    Steps come in this order: images without a label; --where; the cuts, as they are listed here; --near-frames;
    --near-duplicates; --balance; --max. Train on the result with PseudoLabelDataset(STORE, subset=SUBSET).
    """
    if subset is None and not dry_run and explain is None:
        raise click.UsageError("name the file to write with -o SUBSET.parquet, or say --dry-run")
    from depthsieve.curation.curating import curate as run_curate  # faiss and duckdb

    target = None if dry_run or explain is not None else subset
    summary = run_curate(
        store, target, reliability=reliability, explain=explain, progress=progress_for(as_json), **options
    )
    if as_json:
        print_json(dataclasses.asdict(summary))
    elif summary.explained is not None:
        _print_explanation(summary.explained)
    else:
        _print_funnel(summary)


def _print_funnel(summary: "CurateSummary") -> None:
    rows = [
        [step.name, f"{step.before:,}", f"{step.dropped:,}", f"{step.after:,}", step.note] for step in summary.steps
    ]
    print_table(["step", "in", "dropped", "out", ""], rows)
    for note in summary.notes:
        click.echo(f"Note: {note}.")
    share = summary.kept / summary.images
    written = f"Written to {summary.subset}." if summary.subset else "Nothing was written."
    click.echo(f"{summary.kept:,} of {summary.images:,} images ({share:.1%}) are kept. {written}")


def _print_explanation(found: "Explanation") -> None:
    verdict = "kept" if found.keep else f"dropped by {found.step}: {found.reason}"
    click.echo(f"{found.id}: {verdict}.")
    for name, value, passes in found.checks:
        shown = "not known" if value is None else f"{value:.4g}"
        click.echo(f"  {name}: {shown}, {'passes' if passes else 'does not pass'}")
    for other in found.instead_of:
        click.echo(f"  kept instead of its near-duplicate {other}")
    if found.values:
        known = {name: value for name, value in found.values.items() if isinstance(value, float)}
        click.echo("  " + ", ".join(f"{name} {value:.4g}" for name, value in known.items()))
