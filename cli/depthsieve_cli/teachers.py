"""``depthsieve teachers``: the presets."""

import dataclasses

import click

from depthsieve_cli.output import print_json, print_table


@click.command(epilog="Example: depthsieve teachers --json")
@click.option("--json", "as_json", is_flag=True, help="Print the list as JSON.")
def teachers(as_json: bool) -> None:
    """List the teacher presets: licence of the weights, what they predict, and whether they are on this machine."""
    from depthsieve.teachers import PRESETS, cached

    presets = [(preset, cached(preset)) for preset in PRESETS]
    if as_json:
        print_json([dataclasses.asdict(preset) | {"cached": here} for preset, here in presets])
        return
    rows = [
        [
            preset.name,
            preset.parameters,
            preset.quantity + (f" ({preset.unit})" if preset.unit else ""),
            preset.licence,
            "yes" if here else "no",
            preset.hub_id,
        ]
        for preset, here in presets
    ]
    print_table(["teacher", "size", "predicts", "licence", "cached", "hub id"], rows)
