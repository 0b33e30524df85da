"""``depthsieve view``: labels as a picture, or one as a point cloud."""

from pathlib import Path

import click

from depthsieve.core.errors import UsageError
from depthsieve_cli.choices import as_json_option
from depthsieve_cli.command import Verb, note, progress_for
from depthsieve_cli.completion import ids as complete_ids
from depthsieve_cli.opening import open_file
from depthsieve_cli.output import print_json

DEFAULT_OUT = Path("depthsieve-view.png")


@click.command(
    cls=Verb,
    short_help="Show labels as a picture, or one as a point cloud.",
    epilog="Example: depthsieve view labels/ --worst 8 --where 'sky < 0.5' -o worst.png",
)
@click.argument("store")
@click.argument("ids", nargs=-1, shell_complete=complete_ids)
@click.option("--worst", type=int, metavar="N", help="The N labels of lowest mean reliability.")
@click.option("--best", type=int, metavar="N", help="The N labels of highest mean reliability.")
@click.option("--random", type=int, metavar="N", help="N labels at random.")
@click.option("--seed", type=int, default=0, show_default=True, help="For --random.")
@click.option("--where", metavar="SQL", help="Only labels for which this is true; as `curate` has it.")
@click.option("--drop", type=float, default=0.10, show_default=True, help="Share of a label's pixels that is masked.")
@click.option("--reliability", metavar="NAME", help="Show the reliability of a layer that recalibrate made.")
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help=f"PNG to write.  [default: {DEFAULT_OUT}; none with --ply alone]",
)
@click.option("--open", "show", is_flag=True, help="Open what was written in the system's viewer.")
@click.option(
    "--ply", type=click.Path(path_type=Path), metavar="FILE", help="Write one label as a coloured point cloud (PLY)."
)
@click.option(
    "--focal",
    type=float,
    metavar="PIXELS",
    help="For --ply: focal length in pixels of the photo.  [default: the label's camera (see `label --cameras`; EXIF), "
    "else 60 degrees]",
)
@click.option("--fov", type=float, metavar="DEGREES", help="For --ply, instead of --focal: horizontal field of view.")
@as_json_option("what was shown and written")
def view(
    store: str,
    ids: tuple[str, ...],
    worst: int | None,
    best: int | None,
    random: int | None,
    seed: int,
    where: str | None,
    drop: float,
    reliability: str | None,
    out: Path | None,
    show: bool,
    ply: Path | None,
    focal: float | None,
    fov: float | None,
    as_json: bool,
) -> None:
    """Draw labels of STORE: photo, depth, reliability, and what a mask drops.

    IDS are images, or the beginnings of ids: all that begin so. Without any, 8 labels are shown, at even distances from
    the least to the most reliable. One label is drawn large.

    Depth is red where it is near and blue where it is far. Reliability is light where the label is reliable, stretched
    over the codes that are shown. Chequered pixels have no label.
    """
    if ply is None and (focal is not None or fov is not None):
        raise UsageError("--focal and --fov are for --ply FILE")
    from depthsieve.report.view import view as run_view  # numpy, pyarrow, Pillow

    shown = run_view(
        store,
        ids,
        worst=worst,
        best=best,
        random=random,
        seed=seed,
        where=where,
        drop=drop,
        reliability=reliability,
        progress=progress_for(as_json),
    )
    notes, written, made = list(shown.notes), [], None
    if ply is not None:
        made = shown.save_cloud(ply, drop, focal, fov)
        notes += made.notes
        written.append(ply)
    if ply is None or out is not None:
        out = shown.save(out or DEFAULT_OUT)
        written.append(out)
    if show:
        notes += filter(None, (open_file(path) for path in written))
    if as_json:
        found = {"store": shown.store, "ids": shown.ids, "drop": drop, "chosen": shown.chosen, "notes": notes}
        found["reliability"] = shown.reliability_from
        found |= {"out": out, "ply": ply, "points": made and len(made.vertices_N)}
        print_json(found | {"focal_px": made and made.focal_px, "focal_from": made and made.focal_from})
        return
    for line in notes:
        note(line)
    if made is not None:
        left_out = f"{made.left_out:,} invalid or masked pixels left out"
        click.echo(f"{shown.chosen}: {len(made.vertices_N):,} points, {left_out}, {made.lens}: {ply}")
    if out is not None:
        click.echo(f"{shown.chosen}: {out}")
        click.echo(f"Reliability from {shown.reliability_from}.")
