"""``depthsieve teachers``: what can label."""

import dataclasses

import click

from depthsieve_cli.choices import as_json_option
from depthsieve_cli.output import print_json, print_table


@click.command(
    short_help="List the teachers with their licence, quantity and size.", epilog="Example: depthsieve teachers --json"
)
@as_json_option("the list", also="")
def teachers(as_json: bool) -> None:
    """List the teachers with a name of their own: what they predict, licence of the weights, what is on this machine.

    Any other depth model works too, by its hub id or local folder.
    """
    from depthsieve.teachers import EMBEDDED, PRESETS, cached

    listed = [(preset, cached(preset)) for preset in (EMBEDDED, *PRESETS)]
    if as_json:
        print_json([dataclasses.asdict(preset) | {"cached": here} for preset, here in listed])
        return
    rows = []
    for preset, here in listed:
        predicts = f"{preset.quantity} ({preset.unit})" if preset.unit else preset.quantity
        words = [preset.name, preset.parameters, predicts, preset.licence, "yes" if here else "no"]
        rows.append([*words, preset.hub_id or preset.note])
    print_table(["teacher", "size", "predicts", "licence", "cached", "hub id"], rows)
    notes = [(preset.name, preset.note) for preset in PRESETS if preset.note]
    click.echo("\nLicences are those of the weights. Before you label with one of these:")
    for name, note in notes:
        click.echo(f"  {name}: {note}")
