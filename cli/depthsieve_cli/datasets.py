"""``depthsieve datasets``: whose recipes ship, and what one says."""

import dataclasses
from pathlib import Path

import click

from depthsieve_cli.choices import as_json_option
from depthsieve_cli.command import Verb
from depthsieve_cli.output import print_json, print_table


@click.command(
    cls=Verb,
    short_help="List the datasets that have a recipe, or print one.",
    epilog="Example: depthsieve datasets sa-1b",
)
@click.argument("name", required=False)
@as_json_option("all of it", also="")
def datasets(name: str | None, as_json: bool) -> None:
    """List the datasets that have a recipe, or print the recipe called NAME.

    A recipe has layout, terms, traps, and the commands to scan and label a dataset. NAME may also be a FILE.toml of
    your own, which is checked. `depthsieve scan --dataset NAME` applies it.
    """
    from depthsieve.sources.recipes import load_recipe, recipe_names, recipes_folder

    if name is not None:
        path = Path(name) if name.endswith(".toml") else recipes_folder() / f"{name}.toml"
        recipe = load_recipe(name)
        if as_json:
            print_json(dataclasses.asdict(recipe))
        else:
            click.echo(path.read_text(encoding="utf-8"), nl=False)
        return
    recipes = [load_recipe(known) for known in recipe_names()]
    if as_json:
        print_json([dataclasses.asdict(recipe) for recipe in recipes])
        return
    rows = []
    for recipe in sorted(recipes, key=lambda one: one.kind):
        terms = recipe.licence
        images = f"{recipe.images.expected:,}" if recipe.images.expected else "?"
        rows.append([recipe.name, recipe.kind, images, terms.commercial_use, terms.share_labels, terms.name])
    print_table(["dataset", "kind", "images", "commercial use", "labels may be passed on", "licence"], rows)
    click.echo("\nThese are no legal advice. What a recipe says, with its sources: depthsieve datasets NAME")
