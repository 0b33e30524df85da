"""``depthsieve evaluate``: labels against ground truth."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from depthsieve.evaluation.ground_truth.settings import GroundTruthQuantity
from depthsieve.evaluation.settings import ALIGNMENTS, EvaluateSettings
from depthsieve_cli.align_clips import print_stability
from depthsieve_cli.choices import as_json_option
from depthsieve_cli.command import Verb, progress_for
from depthsieve_cli.output import count, print_datasets, print_first, print_json, print_table

if TYPE_CHECKING:
    from depthsieve.evaluation.metrics import CurveMetric
    from depthsieve.evaluation.result import Evaluation

DEFAULTS = EvaluateSettings()
QUANTITIES = get_args(GroundTruthQuantity)
SHOWN = 5
NAMES = {
    "abs_rel": "AbsRel",
    "rmse": "RMSE",
    "log10": "log10",
    "delta1": "delta1",
    "delta2": "delta2",
    "delta3": "delta3",
    "boundary_f1": "boundary F1",
    "label_error": "label error",
}
AREAS: "dict[CurveMetric, str]" = {
    "abs_rel": "AbsRel",
    "label_error": "label error",
    "rmse": "RMSE",
    "delta1": "1 - delta1",
}
LEFT_AT = 0.10
WIDE = 0.15
"""An interval of the drop that is wider leaves the choice open."""
TRUTH_NAMES = {"inverse": "inverse depth", "disparity": "disparity in pixels"}
ALIGNED = {
    "none": "not aligned",
    "scale": "aligned by scale, image by image",
    "scale-shift": "aligned by scale and shift, image by image",
}


def scale_by(text: str) -> tuple[str, float]:
    pattern, _, units = text.rpartition("=")
    try:
        return pattern, float(units)
    except ValueError:
        raise click.BadParameter(f"{text!r} is not FILES=UNITS, such as '*_mm.png=1000'") from None


def truth_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of `evaluate` and `calibrate` that say where files of depth are, and in which unit."""
    declared = (
        click.option(
            "--scale",
            type=float,
            metavar="UNITS",
            help="How many units of the depth files are a metre; PNG needs it: 1000 for millimetres, 256 for KITTI, "
            "5000 for TUM.  [default: values are metres]",
        ),
        click.option(
            "--scale-by",
            multiple=True,
            metavar="FILES=UNITS",
            callback=lambda _context, _option, values: tuple(map(scale_by, values)),
            help="Units of the depth files that fit a pattern, such as '*_mm.png=1000' or 'kitti/=256'; may be "
            "repeated. Each file must fit one, or --scale counts.",
        ),
        click.option(
            "--pattern",
            multiple=True,
            metavar="PATTERN",
            help="Where an image's depth is, such as '{dir}/{stem}_depth.png'; also {name}, {source}, and * for any "
            "folder; may be repeated.  [default: {dir}/{stem} with any of the suffixes]",
        ),
        click.option(
            "--replace",
            nargs=2,
            multiple=True,
            metavar="OLD NEW",
            help="Replace OLD in an image's path by NEW to find its depth; may be repeated.",
        ),
    )
    for one in reversed(declared):
        command = one(command)
    return command


@click.command(
    cls=Verb,
    short_help="Compare labels with ground truth: accuracy, AUSE, AURG.",
    epilog="Example: depthsieve evaluate labels/ --ground-truth depth/ --scale 1000 --out evaluation/",
)
@click.argument("store")
@click.option(
    "--ground-truth",
    required=True,
    metavar="DIR",
    help="Folder with a .npy, .npz, 16-bit .png, .pfm, .exr, .h5 or .hdf5 file per image, or one HDF5 file (NYU's "
    ".mat) with all maps.",
)
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), metavar="DIR", help="Write JSON, a CSV of images and plots."
)
@truth_options
@click.option(
    "--min-depth",
    default=DEFAULTS.min_depth,
    show_default=True,
    metavar="M",
    help="Ignore ground truth nearer than this.",
)
@click.option(
    "--max-depth",
    default=DEFAULTS.max_depth,
    show_default=True,
    metavar="M",
    help="Ignore ground truth farther than this.",
)
@click.option(
    "--align",
    type=click.Choice(ALIGNMENTS),
    default=DEFAULTS.align,
    show_default=True,
    help="What is fitted to the ground truth. auto: scale and shift for disparity, nothing for metres.",
)
@click.option(
    "--min-pixels",
    default=DEFAULTS.min_pixels,
    show_default=True,
    metavar="N",
    help="Do not compare images with fewer pixels of ground truth.",
)
@click.option(
    "--ground-truth-quantity",
    type=click.Choice(QUANTITIES),
    default=DEFAULTS.ground_truth_quantity,
    show_default=True,
    help="Values of the files: metres, inverse metres, or disparity in pixels.",
)
@click.option(
    "--baseline-focal",
    type=float,
    metavar="B*F",
    help="For disparity: baseline in metres times focal length in pixels.",
)
@click.option(
    "--calib-pattern",
    metavar="PATTERN",
    help="For disparity: where in DIR an image's calib.txt is (Middlebury, ETH3D), such as '{dir}/calib.txt'.",
)
@click.option(
    "--missing",
    type=float,
    multiple=True,
    metavar="VALUE",
    help="A value of the files that marks missing ground truth, besides 0, less, NaN, infinity and the largest of a "
    "whole-number type; may be repeated.",
)
@click.option(
    "--mask-pattern",
    metavar="PATTERN",
    help="Where in DIR an image's mask is, 0 where ground truth does not count, such as '{dir}/{stem}_depth_mask.npy'.",
)
@click.option(
    "--strip",
    default=DEFAULTS.strip,
    show_default=True,
    metavar="N",
    help="Leave out N folders at the start of an image's path to find its ground truth.",
)
@click.option(
    "--associate",
    type=float,
    metavar="SECONDS",
    help="Match names that are timestamps, at most this far apart, the closest pairs first (TUM: 0.02).",
)
@click.option("--dataset", metavar="NAME", help="Which dataset of HDF5 files.  [default: the only one; .mat: depths]")
@click.option(
    "--count-from",
    type=int,
    default=DEFAULTS.count_from,
    show_default=True,
    metavar="0|1",
    help="Number of the first image, where one file holds all maps and images are named by number.",
)
@click.option(
    "--distance-to-depth",
    type=float,
    metavar="FOCAL",
    help="The files hold distance to the camera's centre; convert it to depth for this focal length in pixels "
    "(Hypersim: 886.81).",
)
@click.option("--reliability", metavar="NAME", help="Evaluate a layer of recalibrate, not the labels' own reliability.")
@as_json_option("everything")
def evaluate(
    store: str, ground_truth: str, out: Path | None, reliability: str | None, as_json: bool, **options: Any
) -> int:
    """Compare the labels of STORE with ground truth: accuracy, whether reliability finds errors, which drop to use.

    Labels are brought to the resolution of the ground truth. Images are matched by name; a part of them is enough.

    Exit codes: 0 done; 1 nothing could be compared; 2 wrong options; 3 done, but some images that have ground truth
    could not be compared (they are named).
    """
    from depthsieve.evaluation.comparing import evaluate_labels  # torch takes seconds

    result = evaluate_labels(
        store, ground_truth, out=out, reliability=reliability, progress=progress_for(as_json), **options
    )
    if as_json:
        print_json(result.as_json())
    else:
        _print(result)
        if out is not None:
            from depthsieve.evaluation.writing import FILES

            click.echo(f"Written to {out}: {', '.join(FILES)}.")
    return 3 if result.not_compared else 0


def _print(result: "Evaluation") -> None:
    low, high = result.settings.depth_range
    click.echo(f"{result.store} against {result.ground_truth}:")
    click.echo(
        f"{count(len(result.images), 'image')}, {count(result.pixels, 'pixel')} from {low:g} to {high:g} m; labels are "
        f"{'disparity' if result.quantity == 'disparity' else 'metres'}, {ALIGNED[result.align]}."
    )
    if result.settings.ground_truth_quantity != "depth":
        click.echo(f"Ground truth is read as {TRUTH_NAMES[result.settings.ground_truth_quantity]}.")
    for note in result.notes:
        click.echo(f"Note: {note.text}{'' if note.text.endswith('?') else '.'}")
        _print_images(note.images)
    click.echo("")
    rows = [[name, _number(result.mean[key]), _number(result.median[key])] for key, name in NAMES.items()]
    print_table(["over images", "mean", "median"], rows)
    edged = sum(not math.isnan(score.boundary_f1) for score in result.images)
    if edged < len(result.images):
        click.echo(
            f"Boundary F1 counts {count(edged, 'image')}: the ground truth of the others is too sparse, or has too few "
            "edges."
        )
    click.echo("")
    _print_reliability(result)
    if math.isnan(result.mean["spearman"]):
        click.echo(
            "Reliability is the same all over each image, so it finds no errors: were labels imported without it?"
        )
    else:
        click.echo(f"Reliability finds errors better than chance on {result.better_than_chance:.0%} of the images.")
        click.echo(f"Spearman correlation of reliability and error: {_number(result.mean['spearman'])} (-1 is best).")
    click.echo(_calibration(result))
    click.echo("")
    rows = [
        [f"{row.dropped:.0%}", *map(_number, (row.method, row.random, row.oracle))] for row in result.kept["abs_rel"]
    ]
    print_table(["AbsRel after dropping", "least reliable", "any", "largest error"], rows)
    click.echo(_knee(result))
    if result.stability.clips:
        click.echo("")
        print_stability(result.stability)
    _print_unmatched(result)
    print_datasets(result.datasets)


def _print_reliability(result: "Evaluation") -> None:
    rows = []
    for key, name in AREAS.items():
        areas = [_number(result.mean[f"{area}_{key}"]) for area in ("ause", "aurg")]
        left = next((row for row in result.kept.get(key, ()) if row.dropped == LEFT_AT), None)
        shares = [_share(row, left.random) for row in (left.method, left.oracle)] if left else ["-", "-"]
        rows.append([name, *areas, *shares])
    print_table(["reliability", "AUSE", "AURG", f"left at {LEFT_AT:.0%}", "at best"], rows)
    click.echo(
        f"Left at {LEFT_AT:.0%}: what dropping the least reliable {LEFT_AT:.0%} of the pixels leaves of the error; any "
        f"{LEFT_AT:.0%} leave all of it, those of the largest error what is under at best."
    )


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.1%}" if whole > 0 else "-"


def _print_images(images: Sequence[str]) -> None:
    """The first images that a note is about."""
    if images:
        click.echo(f"  {_first_of(images)}")


def _first_of(names: Sequence[str]) -> str:
    more = f", ... ({len(names) - 2:,} more; --json names all of them)" if len(names) > 2 else ""
    return ", ".join(names[:2]) + more


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}"


def _calibration(result: "Evaluation") -> str:
    bias, spread = result.calibration.bias, result.calibration.spread
    if math.isnan(bias):
        return "Calibration: no error to compare with what the codes say."
    off = f"single codes are off by a factor of {_factor(spread)}"
    return f"Calibration: labels err {_factor(bias)} times as much as their reliability codes say; {off}."


def _factor(log10: float) -> str:
    factor = 10**log10
    return f"{factor:,.0f}" if factor >= 99.5 else f"{factor:.2g}"


def _knee(result: "Evaluation") -> str:
    knee = result.knee
    if knee.drop is None:
        return f"No drop stands out: {knee.reason}."
    kept = f"keep {1 - knee.drop:.0%} of the pixels"
    told = f"drop {knee.drop:.2f} would {kept} and lower AbsRel from {knee.error:.4f} to {knee.kept_error:.4f}."
    if knee.low is None or knee.high is None:
        return told
    images = count(len(result.images), "image")
    few = f": {images} are too few to tell it more closely" if knee.high - knee.low > WIDE else ""
    return (
        f"{told}\nFor other images like these it lies between {knee.low:.2f} and {knee.high:.2f} (90% interval){few}."
    )


def _print_unmatched(result: "Evaluation") -> None:
    print_first([f"not compared: {failure.id}: {failure.reason}" for failure in result.not_compared], SHOWN)
    _print_names(result.without_truth, "label", "without ground truth")
    _print_names(result.without_image, "ground truth", "without an image")


def _print_names(names: Sequence[str], noun: str, what: str) -> None:
    if names:
        click.echo(f"{count(len(names), noun)} {what}: {_first_of(names)}.")
