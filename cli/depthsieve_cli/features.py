"""``depthsieve features``: add features to shards that were labelled without."""

import dataclasses

import click

from depthsieve.core.records import TeacherSettings
from depthsieve_cli.choices import as_json_option, from_settings
from depthsieve_cli.command import Verb, progress_for
from depthsieve_cli.output import count, print_failures, print_json, print_pace


@click.command(
    cls=Verb,
    short_help="Compute the features that curate needs, where missing.",
    epilog="Example: depthsieve features labels/",
)
@click.argument("store")
@from_settings(TeacherSettings, only=["device"])
@as_json_option()
def features(store: str, device: str, as_json: bool) -> int:
    """Add the features that curate needs where they are missing.

    Labelling computes them already: image statistics, hashes and embeddings. This is for shards of STORE that an
    earlier release labelled, and for those that a repair took out. Images are read again and go through the teacher
    once. Run it again to resume.

    Exit codes: 0 all done; 1 some shards cannot be read; 3 done, but some images could not be read.
    """
    from depthsieve.jobs.layers.features import add_features  # torch takes seconds

    summary = add_features(store, device=device, progress=progress_for(as_json))
    if as_json:
        print_json(dataclasses.asdict(summary))
    else:
        if summary.shards_now:
            print_pace("Added features of", summary.images_now, summary.seconds)
        else:
            click.echo("0 images to do.")
        click.echo(f"{summary.store}: {count(summary.shards, 'shard')} with features.")
        print_failures(summary.without_image)
        for error in summary.errors:
            click.echo(f"Error: {error}", err=True)
    return 1 if summary.errors else 3 if summary.without_image else 0
