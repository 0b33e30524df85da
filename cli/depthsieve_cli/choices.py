"""What `label` and `plan` have in common: the arguments SOURCE and STORE, and an option for every setting."""

from collections.abc import Callable
from typing import Any, get_args

import click

from depthsieve.core.encodings import ENCODINGS
from depthsieve.core.records import Dtype, Oversize, Quantity
from depthsieve.planning.options import LabelOptions
from depthsieve.reliability.kinds import signals_help

DEFAULTS = LabelOptions()

PLANNING = (
    click.argument("source"),
    click.argument("store"),
    click.option(
        "--teacher",
        default=DEFAULTS.teacher,
        show_default=True,
        metavar="NAME",
        help="Preset (see `depthsieve teachers`), hub id, or local folder.",
    ),
    click.option("--revision", metavar="REV", help="Commit, tag or branch of a hub checkpoint."),
    click.option(
        "--size", type=int, metavar="PIXELS", help="Short side the teacher works at.  [default: the teacher's own]"
    ),
    click.option("--device", default=DEFAULTS.device, show_default=True, help="auto, cpu, cuda, cuda:1, ..."),
    click.option(
        "--dtype",
        type=click.Choice(get_args(Dtype)),
        default=DEFAULTS.dtype,
        show_default=True,
        help="What the teacher computes in; decides the labels. auto: the store's, else float16 on CUDA, or float32.",
    ),
    click.option(
        "--quantity",
        type=click.Choice(get_args(Quantity)),
        help="What the teacher predicts, for a checkpoint that does not say so itself; depth is in metres.",
    ),
    click.option(
        "--batch-size", type=int, metavar="N", help="Images a forward pass.  [default: found by a short trial]"
    ),
    click.option(
        "--threads", type=int, metavar="N", help="Threads of one worker.  [default: all cores, shared by workers]"
    ),
    click.option(
        "--shard-size",
        type=int,
        default=DEFAULTS.shard_size,
        show_default=True,
        metavar="N",
        help="Most images in a shard, for images added now.",
    ),
    click.option(
        "--signals",
        default=DEFAULTS.signals,
        show_default=True,
        metavar="LIST",
        help=f"What labels are compared with, to tell how reliable they are. {signals_help()}.",
    ),
    click.option(
        "--second-teacher", metavar="NAME", help="Another teacher to compare labels with; adds teachers to --signals."
    ),
    click.option(
        "--keep-signals", is_flag=True, help="Keep the signals beside the labels, for `depthsieve recalibrate`."
    ),
    click.option(
        "--encoding",
        type=click.Choice(tuple(ENCODINGS)),
        help="How labels are packed. small: a fifth fewer bytes, far longer to write, longer to read.  [default: the "
        "store's, else fast]",
    ),
    click.option(
        "--store-images",
        is_flag=True,
        help="Keep the images beside the labels, at their shape, as JPEG, which training reads far faster. Adds those "
        "of what is labelled already.",
    ),
    click.option(
        "--image-quality", type=int, metavar="N", help="JPEG quality of those images.  [default: the store's, else 90]"
    ),
    click.option(
        "--max-tokens",
        type=int,
        default=DEFAULTS.max_tokens,
        show_default=True,
        metavar="N",
        help="Most patches an image may take.",
    ),
    click.option(
        "--oversize",
        type=click.Choice(get_args(Oversize)),
        default=DEFAULTS.oversize,
        show_default=True,
        help="What to do with images above --max-tokens.",
    ),
    click.option(
        "--runner",
        type=click.Choice(["auto", "local", "ray"]),
        default=DEFAULTS.runner,
        show_default=True,
        help="local: this process. ray: worker processes. auto: ray for an address, several workers or GPUs.",
    ),
    click.option(
        "--workers",
        type=int,
        metavar="N",
        help="Ray workers.  [default: one a GPU; on a cluster as many as it has room for]",
    ),
    click.option("--address", metavar="ADDR", help="A running Ray cluster.  [default: a private one on this machine]"),
    click.option("--name", default=DEFAULTS.name, show_default=True, help="Name of this source within the store."),
    click.option(
        "--root", metavar="DIR", help="What ids are relative to where SOURCE is a list.  [default: the list's folder]"
    ),
    click.option("--moved", is_flag=True, help="The images of this source have moved to SOURCE."),
    click.option("--retry-failed", is_flag=True, help="Try the images again that stand failed."),
    click.option("--prune", is_flag=True, help="Let images leave the store that are no longer in SOURCE."),
    click.option("--prune-most", is_flag=True, help="The same, even where they are more than half of what it knows."),
    click.option(
        "--check-content",
        is_flag=True,
        help="Read every labelled image to see whether it has changed, not only those with another size or time.",
    ),
)


def planning_choices(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a command all of them."""
    for choice in reversed(PLANNING):
        command = choice(command)
    return command
