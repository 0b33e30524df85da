"""``depthsieve align-clips``: one scale and shift for the frames of each clip, and how steady labels are in time."""

import dataclasses
from typing import TYPE_CHECKING

import click

from depthsieve_cli.choices import as_json_option
from depthsieve_cli.command import Verb, progress_for
from depthsieve_cli.output import count, print_failures, print_json, print_pace, print_table

if TYPE_CHECKING:
    from depthsieve.evaluation.stability import Stability
    from depthsieve.jobs.layers.clips import AlignClipsSummary

SHOWN = 20
"""Clips that are listed."""


@click.command(
    cls=Verb,
    short_help="Bring the frames of each clip to one scale.",
    epilog="Example: depthsieve align-clips labels/",
)
@click.argument("store")
@as_json_option()
def align_clips(store: str, as_json: bool) -> int:
    """Bring the labels of each clip to one scale and shift.

    Clips are the videos of STORE and, in sources labelled with --sequence, its folders. Scale and shift of each frame
    are written as a layer, and labels do not change. Labels in metres keep their scale, and only their change from
    frame to frame is measured. Photos are read again; no teacher is needed. Run it again to resume, or after labelling
    more frames.

    Exit codes: 0 all done; 1 some shards cannot be read; 3 done, but some photos could not be read.
    """
    from depthsieve.jobs.layers.clips import align_clips as run_align_clips  # cv2 and zarr

    summary = run_align_clips(store, progress=progress_for(as_json))
    if as_json:
        print_json(dataclasses.asdict(summary))
    else:
        if summary.shards_now:
            print_pace("Aligned", summary.images_now, summary.seconds)
        else:
            click.echo("0 images to do.")
        print_stability(summary)
        print_failures(summary.without_photo)
        for error in summary.errors:
            click.echo(f"Error: {error}", err=True)
    return 1 if summary.errors else 3 if summary.without_photo else 0


def print_stability(steady: "Stability | AlignClipsSummary") -> None:
    """How much labels change from frame to frame, by clip, and over all of them."""
    clips = steady.clips
    rows = [
        [one.clip, f"{one.frames:,}", f"{one.segments:,}", _share(one.change), _share(one.change_aligned)]
        for one in clips[:SHOWN]
    ]
    if len(clips) > SHOWN:
        rows.append([f"{len(clips) - SHOWN:,} more; --json names all of them", "", "", "", ""])
    frames, segments = (f"{sum(getattr(one, name) for one in clips):,}" for name in ("frames", "segments"))
    of_all = [_share(steady.change), _share(steady.change_aligned)]
    rows.append([f"all {count(len(clips), 'clip')}", frames, segments, *of_all])
    print_table(["change from frame to frame", "frames", "segments", "as labelled", "aligned"], rows)


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.2%}"
