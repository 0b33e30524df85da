"""``depthsieve import``: depth maps that were made elsewhere become a store."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from depthsieve_cli.choices import as_json_option
from depthsieve_cli.command import Verb, note, progress_for
from depthsieve_cli.output import count, print_ending, print_json, print_pace, print_standing, size

if TYPE_CHECKING:
    from depthsieve.jobs.importing.run import ImportSummary

MEANS = ("higher-is-better", "lower-is-better", "error", "code")


@click.command(
    "import",
    cls=Verb,
    short_help="Make a store of depth maps that were made elsewhere.",
    epilog="Example: depthsieve import maps/ labels/ --images photos/ --quantity depth --scale 1000",
)
@click.argument("maps")
@click.argument("store")
@click.option("--images", required=True, metavar="SOURCE", help="The photos, as SOURCE of `label`.")
@click.option(
    "--quantity",
    type=click.Choice(("depth", "disparity")),
    help="What the maps hold: depth in metres (larger is farther), or disparity up to scale and shift (larger is "
    "nearer).  [default: as an export says; else needed]",
)
@click.option(
    "--scale",
    type=float,
    metavar="N",
    help="How many units of the files are a metre, such as 1000 for millimetres; whole numbers of depth need it.",
)
@click.option(
    "--invalid",
    type=float,
    multiple=True,
    metavar="VALUE",
    help="Marks pixels without depth, as the files have it; may be repeated. NaN, infinity and depth of 0 do anyway; "
    "without this option, so does the largest whole number of depth (65535 in 16 bits).",
)
@click.option(
    "--max", "max_value", type=float, metavar="METRES", help="The largest depth, or disparity, that is valid."
)
@click.option(
    "--distance-to-depth",
    type=float,
    metavar="FOCAL",
    help="The maps hold distance to the camera's centre: convert it to depth, for this focal length in pixels of the "
    "maps (Hypersim: 886.81).",
)
@click.option(
    "--pattern",
    metavar="PATTERN",
    help="Where an image's map is, with {dir}, {stem}, {name}, {source} and * for a folder.  [default: {dir}/{stem} "
    "and a suffix]",
)
@click.option(
    "--replace",
    nargs=2,
    multiple=True,
    metavar="OLD NEW",
    help="Before --pattern: replace a text in the image's path; may be repeated.",
)
@click.option("--strip", type=int, default=0, show_default=True, metavar="N", help="Folders to leave out at its start.")
@click.option("--dataset", metavar="NAME", help="The array in HDF5 and .npz files.  [default: the only one]")
@click.option("--confidence", metavar="PATTERN", help="Where an image's confidence map is, as --pattern.")
@click.option(
    "--confidence-means",
    type=click.Choice(MEANS),
    help="What confidence maps hold; `error` is the expected relative error, `code` depthsieve's own codes.",
)
@click.option(
    "--confidence-range",
    nargs=2,
    type=float,
    metavar="LOW HIGH",
    help="The least and the largest confidence.  [default: 0 to 1, or to the largest whole number of the files' type]",
)
@click.option("--confidence-dataset", metavar="NAME", help="Its array in HDF5 and .npz files.  [default: the only one]")
@click.option(
    "--calibration",
    metavar="FILE",
    help="An error network that `depthsieve calibrate` trained: reliability comes from it, by photo and map.  "
    "[default: the store's, if it has one]",
)
@click.option("--stretched", is_flag=True, help="Maps cover their photos whole although their aspects differ.")
@click.option("--made-by", metavar="TEXT", help="What made the maps; maps of other words never mix.")
@click.option(
    "--name", default="default", show_default=True, metavar="NAME", help="Name of the source, first part of its ids."
)
@click.option("--root", metavar="FOLDER", help="What ids are relative to, where --images is a list of files.")
@click.option("--exclude", multiple=True, metavar="PATTERN", help="Leave out of --images, such as '*_depth.png'.")
@click.option("--moved", is_flag=True, help="The images of this source have moved to --images.")
@click.option(
    "--shard-size", type=int, default=256, show_default=True, metavar="N", help="Most images in a shard, for new ones."
)
@click.option("--threads", type=int, metavar="N", help="Images at a time.  [default: all cores]")
@click.option("--dry-run", is_flag=True, help="Write nothing; say what would be imported, and what is wrong with it.")
@as_json_option()
def import_maps(maps: str, store: str, as_json: bool, **options: Any) -> int:
    """Make a store of depth maps that were made elsewhere.

    MAPS is a folder with a .npy, .npz, .pfm, .exr, .h5, .hdf5 or 16-bit .png file for each image of --images, or what
    `depthsieve export` wrote. STORE is created, or extended: run it again to resume, or to add maps that are new or
    have changed. A label has the shape of its map.

    Exit codes: 0 all done; 1 some files cannot be read; 3 done, but some images failed.
    """
    from depthsieve.jobs.importing.run import import_labels  # torch takes seconds

    summary = import_labels(maps, store, progress=progress_for(as_json), **options)
    if as_json:
        print_json(dataclasses.asdict(summary))
    else:
        _print_summary(summary, options["dry_run"])
    return 1 if summary.errors else 3 if summary.failed else 0


def _print_summary(summary: "ImportSummary", dry_run: bool) -> None:
    for line in summary.notes:
        note(line)
    if dry_run:
        click.echo(
            f"Would import {count(summary.planned_now, 'image')} into {summary.store}, at most "
            f"{size(summary.bytes)}; {summary.labelled:,} are there. Nothing was written."
        )
    elif summary.imported_now:
        print_pace("Imported", summary.imported_now, summary.seconds)
    elif not summary.errors:
        click.echo("0 images to do.")
    if not dry_run:
        print_standing(summary)
    _print_left_out(summary.without_map, "image", "without a map", summary.first_without_map)
    _print_left_out(summary.without_image, "map", "without an image", summary.first_without_image)
    print_ending(summary, "Mend their files; the same command tries them again.")


def _print_left_out(number: int, noun: str, why: str, first: Sequence[str]) -> None:
    if number:
        named = ", ".join(first[:3]) + (", ..." if number > 3 else "")
        click.echo(f"{count(number, noun)} {why} left out: {named}")
