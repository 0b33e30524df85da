"""``depthsieve calibrate``: a network that tells the errors of a teacher's labels."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from depthsieve.core.records import Quantity
from depthsieve.jobs.calibrate.settings import CalibrateSettings
from depthsieve_cli import completion
from depthsieve_cli.choices import as_json_option
from depthsieve_cli.command import Verb, note, progress_for
from depthsieve_cli.evaluate import truth_options
from depthsieve_cli.output import count, print_failures, print_json, print_table

if TYPE_CHECKING:
    from depthsieve.jobs.calibrate.run import CalibrateSummary

DEFAULTS = CalibrateSettings()


@click.command(
    cls=Verb,
    short_help="Train the network that tells a teacher's errors.",
    epilog="Example: depthsieve calibrate --teacher tiny -o tiny.safetensors",
)
@click.option(
    "--teacher",
    required=True,
    metavar="NAME",
    shell_complete=completion.teachers,
    help="Whose errors to learn: a preset, a hub id, a local folder, package.module:factory, or `tiny`.",
)
@click.option(
    "-o",
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The calibration to write, a safetensors file.",
)
@click.option(
    "--pairs",
    multiple=True,
    metavar="DIR",
    help="Learn from photos with measured depth too, and judge on one in three of them; may be repeated.",
)
@click.option(
    "--ground-truth",
    metavar="DIR",
    help="Where the depth of the photos is, as for `evaluate`.  [default: in the folder of the photos]",
)
@truth_options
@click.option(
    "--cameras",
    metavar="FILE",
    help="Cameras of the pairs, for a teacher that takes them: a CSV file (image,fx[,fy,cx,cy,width,height]) or a "
    "COLMAP model, which go before EXIF.  [default: EXIF]",
)
@click.option(
    "--focal-length",
    type=float,
    metavar="PIXELS",
    help="Focal length of all pairs that --cameras does not name, in pixels of each.",
)
@click.option(
    "--fov", type=float, metavar="DEGREES", help="Instead of --focal-length: their angle of view along the longer side."
)
@click.option(
    "--start",
    metavar="FILE",
    help="Go on from this calibration, of any teacher that predicts the same: fewer scenes and steps will do.",
)
@click.option("--scenes", default=DEFAULTS.scenes, show_default=True, metavar="N", help="Scenes to learn from.")
@click.option("--judged", default=DEFAULTS.judged, show_default=True, metavar="N", help="Scenes to judge on.")
@click.option("--steps", default=DEFAULTS.steps, show_default=True, metavar="N", help="Steps of training.")
@click.option("--seed", default=DEFAULTS.seed, show_default=True, metavar="N", help="Seed of scenes and training.")
@click.option(
    "--device", default="auto", show_default=True, metavar="NAME", help="cpu, cuda, cuda:N, mps, or auto (CUDA first)."
)
@click.option("--size", type=int, metavar="PIXELS", help="Short side of Depth Anything models.  [default: its own]")
@click.option("--revision", metavar="REV", help="Branch, tag or commit of a teacher of the hub.")
@click.option(
    "--quantity", type=click.Choice(get_args(Quantity)), help="What the teacher predicts, where it does not say."
)
@as_json_option()
def calibrate(as_json: bool, **options: Any) -> int:
    """Train a network that tells the errors of a teacher's labels, from the photo and the label alone.

    Scenes are rendered and labelled, the network learns where those labels are wrong, and is judged on scenes of
    another family, next to the mirrored image and to the label itself. A teacher's own confidence, if it gives one,
    becomes an expected error by a table, and counts beside the network where that helps on scenes held back.

    Run it again to resume; what is done so far is kept beside FILE until the end.

    Exit codes: 0 done; 1 could not do it; 2 wrong options; 3 done, but some pairs could not be read (they are named).
    """
    from depthsieve.jobs.calibrate.run import calibrate as run_calibrate  # torch takes seconds

    summary = run_calibrate(progress=progress_for(as_json), **options)
    if as_json:
        print_json(dataclasses.asdict(summary))
    else:
        _print_summary(summary)
    return 3 if summary.failed else 0


def _print_summary(summary: "CalibrateSummary") -> None:
    for line in summary.notes:
        note(line)
    learnt = f"{count(summary.scenes, 'scene')} and {count(summary.pairs, 'pair')}" if summary.pairs else ""
    click.echo(
        f"{summary.teacher}: trained on {learnt or count(summary.scenes, 'scene')} in {summary.seconds / 60:.1f} min; "
        f"judged on {_judged(summary)} that it was not trained on."
    )
    if summary.pairs_scaled:
        click.echo(f"Expected errors have the scale of {count(summary.pairs_scaled, 'pair')} not learnt from.")
    elif summary.pairs:
        click.echo("Too few pairs to scale expected errors by: their scale is that of rendered scenes.")
    if summary.without_depth:
        click.echo(f"{count(summary.without_depth, 'image')} without depth were passed over.")
    print_failures(summary.failed)
    if summary.confidence is not None:
        for line in summary.confidence.notes():
            note(line)
    click.echo("")
    head = ["judged on", "method", "AUSE", "AURG", "kept", "AbsRel AUSE", "AURG", "kept", "expected", "extra time"]
    rows = [
        [
            one.data,
            one.method,
            *(f"{value:.4f}" for value in (one.ause, one.aurg)),
            f"{one.kept:.3f}",
            *(f"{value:.4f}" for value in (one.abs_rel_ause, one.abs_rel_aurg)),
            f"{one.abs_rel_kept:.3f}",
            "" if one.expected is None else f"{one.expected:.2f}",
            "" if one.extra_time is None else f"{one.extra_time:.0%}",
        ]
        for one in summary.scores
    ]
    print_table(head, rows)
    click.echo(
        "AUSE: lower is better; kept: the error left when the least reliable 10% go; expected: over the error that "
        "there is; extra time: over the plain forward pass."
    )
    click.echo(f"\nWritten to {summary.file}: {summary.calibration}.")


def _judged(summary: "CalibrateSummary") -> str:
    images = {one.data: one.images for one in summary.scores}
    return " and ".join(count(images[data], data[:-1]) for data in ("scenes", "pairs") if data in images)
