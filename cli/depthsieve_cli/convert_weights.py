"""``depthsieve convert-weights``: pickled weights into safetensors, once."""

import dataclasses

import click

from depthsieve_cli.choices import as_json_option
from depthsieve_cli.command import Verb
from depthsieve_cli.output import count, print_json


@click.command(
    "convert-weights",
    cls=Verb,
    short_help="Convert pickled weights (.pt, .pth, .bin) to safetensors.",
    epilog="Example: depthsieve convert-weights model.pt teacher/",
)
@click.argument("source")
@click.argument("folder")
@click.option(
    "--part",
    metavar="KEY",
    help="The key under which SOURCE holds the weights, such as ema.model.  [default: found where there is one]",
)
@as_json_option()
def convert_weights(source: str, folder: str, part: str | None, as_json: bool) -> None:
    """Convert pickled weights (.pt, .pth, .bin) to safetensors, which is what teachers load from.

    SOURCE is read without running anything in it. FOLDER gets model.safetensors, and a config.json of the settings that
    SOURCE holds beside its weights (or, for Metric3D v2, that its weights imply), unless it has one.
    """
    from depthsieve.teachers.converting import convert_weights as run

    summary = run(source, folder, part=part)
    if as_json:
        print_json(dataclasses.asdict(summary))
        return
    under = f" under {summary.part!r}" if summary.part else ""
    click.echo(f"{summary.weights}: {count(summary.tensors, 'tensor')}{under}, {count(summary.parameters, 'number')}.")
    if summary.config is not None:
        click.echo(f"{summary.config}: the settings of the network.")
    if summary.left_out:
        shown = ", ".join(summary.left_out[:5])
        more = f" and {len(summary.left_out) - 5:,} more" if len(summary.left_out) > 5 else ""
        click.echo(f"Left out, as it is no weight: {shown}{more}.")
