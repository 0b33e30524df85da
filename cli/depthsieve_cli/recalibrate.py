"""``depthsieve recalibrate``: reliability with another calibration, as a layer, without the teacher."""

import dataclasses
from typing import TYPE_CHECKING

import click

from depthsieve_cli.choices import as_json_option
from depthsieve_cli.command import Verb, progress_for
from depthsieve_cli.output import count, print_first, print_json, print_pace

if TYPE_CHECKING:
    from depthsieve.jobs.layers.reliability import RecalibrateSummary


@click.command(
    cls=Verb,
    short_help="Recompute reliability with another calibration.",
    epilog="Example: depthsieve recalibrate labels/ --calibration mine.json",
)
@click.argument("store")
@click.option(
    "--calibration",
    metavar="FILE",
    help="An error network that `depthsieve calibrate` trained, or weights that tools/calibration.py wrote; network: "
    "this release's network.  [default: that of the layer --name, else this release's weights where signals are kept, "
    "else its network]",
)
@click.option("--name", metavar="NAME", help="Name of the layer.  [default: the calibration's, such as network-1]")
@click.option("--device", metavar="NAME", default="auto", show_default=True, help="Where a network computes.")
@as_json_option()
def recalibrate(store: str, calibration: str | None, name: str | None, device: str, as_json: bool) -> int:
    """Recompute reliability with another calibration.

    It is written as a layer of STORE; labels do not change. An error network looks at the labels and reads their photos
    again; weights need the signals that `label --keep-signals` kept. Run it again to resume, or after labelling more
    images.

    Exit codes: 0 all done; 1 some shards cannot be read; 3 done, but some shards have no signals, or images no photo.
    """
    from depthsieve.jobs.layers.reliability import recalibrate as run_recalibrate  # torch takes seconds

    progress = progress_for(as_json)
    summary = run_recalibrate(store, calibration=calibration, name=name, device=device, progress=progress)
    if as_json:
        print_json(dataclasses.asdict(summary))
    else:
        _print_summary(summary)
    return 1 if summary.errors else 3 if summary.without_signals or summary.without_photo else 0


def _print_summary(summary: "RecalibrateSummary") -> None:
    if summary.layer is None:
        click.echo(
            f"Nothing to do: the labels of {summary.store} are made with calibration {summary.calibration}. (Give a "
            "--name to write it as a layer all the same.)"
        )
        return
    if summary.shards_now:
        print_pace("Recalibrated", summary.images_now, summary.seconds)
    else:
        click.echo("0 images to do.")
    note = ", which was not fitted on this teacher" if summary.transferred else ""
    click.echo(
        f"{summary.store}: layer {summary.layer} has {count(summary.shards, 'shard')}, with calibration "
        f"{summary.calibration}{note}."
    )
    if summary.confidence_left_out:
        click.echo(
            "The calibration was made with its teacher's own confidence, which no store has: this layer comes from "
            "photo and label alone."
        )
    print_first([f"no signals: shard {shard_id}" for shard_id in summary.without_signals])
    if summary.without_signals:
        shards = count(len(summary.without_signals), "shard")
        click.echo(
            f"{shards} with {count(summary.images_without_signals, 'image')} kept no signals and were skipped; label "
            "those images into a new store with --keep-signals."
        )
    print_first([f"no reliability: {image.id}: {image.reason}" for image in summary.without_photo])
    if summary.without_photo:
        images = count(len(summary.without_photo), "image")
        click.echo(
            f"Reliability of {images} is 0 everywhere in this layer, since it needs their photos; put those back and "
            "run the same command again, or label changed ones again."
        )
    for error in summary.errors:
        click.echo(f"Error: {error}", err=True)
