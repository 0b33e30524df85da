"""``depthsieve teachers``: what can label."""

import dataclasses

import click

from depthsieve_cli.choices import as_json_option
from depthsieve_cli.command import Verb
from depthsieve_cli.output import print_json, print_table


@click.command(
    cls=Verb,
    short_help="List the teachers with their licence, quantity and size.",
    epilog="Example: depthsieve teachers --json",
)
@as_json_option("the list", also="")
def teachers(as_json: bool) -> None:
    """List the teachers with a name of their own: what they predict, licence of the weights, what is on this machine.

    Other depth models work too, by their hub id or local folder. Installed packages can offer teachers of their own,
    and a function that makes one is named as package.module:factory.
    """
    from depthsieve.teachers import IN_PACKAGE, PRESETS, cached, plug_ins

    listed, offered = [(preset, cached(preset)) for preset in (*IN_PACKAGE, *PRESETS)], plug_ins()
    if as_json:
        known = [
            dataclasses.asdict(preset) | {"commercial_use": preset.commercial_use, "cached": here, "package": None}
            for preset, here in listed
        ]
        unknown = dict.fromkeys(known[0]) | {"cached": True}
        print_json(
            [*known, *(unknown | {"name": one.name, "package": one.package, "note": one.clash} for one in offered)]
        )
        return
    rows = []
    for preset, here in listed:
        predicts = f"{preset.quantity} ({preset.unit})" if preset.unit else preset.quantity
        commercial = {True: "yes", False: "no", None: "unclear"}[preset.commercial_use]
        words = [preset.name, preset.parameters, predicts, preset.licence, commercial, "yes" if here else "no"]
        rows.append([*words, preset.hub_id or preset.note])
    rows += [[one.name, "", "", "", "", "yes", f"package {one.package}"] for one in offered]
    print_table(["teacher", "size", "predicts", "licence", "commercial", "cached", "from"], rows)
    notes = [(preset.name, preset.note) for preset in PRESETS if preset.note]
    notes += [(one.name, f"ambiguous: {one.clash}") for one in offered if one.clash]
    click.echo("\nLicence and commercial use are those of the weights. Before you label with one of these:")
    for name, note in notes:
        click.echo(f"  {name}: {note}")
