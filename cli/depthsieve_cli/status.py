"""``depthsieve status``: how a store stands, once or again and again."""

import dataclasses
import sys
import time
from typing import TYPE_CHECKING

import click

from depthsieve.core.errors import UsageError
from depthsieve_cli.choices import as_json_option
from depthsieve_cli.command import Verb
from depthsieve_cli.completion import ids
from depthsieve_cli.output import count, print_datasets, print_failures, print_json, print_table

if TYPE_CHECKING:
    from depthsieve.store.standing import Seen
    from depthsieve.store.status import StoreStatus

EVERY_S = 2.0


@click.command(
    cls=Verb,
    short_help="Show what is done, failed and left, and how fast.",
    epilog="Example: depthsieve status labels/ --watch",
)
@click.argument("store")
@click.option("--watch", is_flag=True, help="Look again every two seconds, until no process is at work or Ctrl-C.")
@click.option(
    "--history",
    metavar="ID",
    shell_complete=ids,
    help="Show instead what became of one image, generation by generation.",
)
@as_json_option("the state", also="with --watch as JSON Lines")
def status(store: str, watch: bool, history: str | None, as_json: bool) -> int:
    """Show the state of STORE: done, failed, left, how fast it goes, and which processes are at work.

    Reads only; runs may be at work meanwhile.

    Exit codes: 0 all labelled; 1 some are left; 3 none is left, but some images failed.
    """
    if history is not None:
        if watch:
            raise UsageError("--history and --watch do not go together; leave one out")
        return _history(store, history, as_json)
    from depthsieve.store.status import status as read_status  # pyarrow and zarr take a second

    seen: Seen = {}
    while True:
        found = read_status(store, seen)
        if as_json:
            print_json(dataclasses.asdict(found), one_line=watch)
        else:
            if watch and sys.stdout.isatty():
                click.clear()
            _print(found)
        if not (watch and found.at_work):
            break
        try:
            time.sleep(EVERY_S)
        except KeyboardInterrupt:
            break
    return 1 if found.pending else 3 if found.failed else 0


def _print(found: "StoreStatus") -> None:
    total = found.labelled + found.pending + len(found.failed)
    click.echo(f"{found.store}: {found.labelled:,} of {count(total, 'image')} labelled, {found.pending:,} left.")
    click.echo(f"{found.shards_committed:,} of {count(found.shards, 'shard')} committed.")
    if found.images_per_second is not None:
        left = "" if found.seconds_left is None else f"; about {_duration(found.seconds_left)} left"
        click.echo(f"{found.images_per_second:,.3g} images/s lately{left}.")
    click.echo(f"Reliability from {found.reliability}.")
    for layer in found.layers:
        kind = f"{layer.kind}, transferred" if layer.transferred else layer.kind
        click.echo(
            f"Layer {layer.name} ({kind}): {layer.shards:,} of {count(found.shards_committed, 'committed shard')}."
        )
    print_datasets(found.datasets)
    for process in found.at_work:
        click.echo(f"At work: {process}.")
    print_failures(found.failed)


def _history(store: str, image_id: str, as_json: bool) -> int:
    from depthsieve.store import open_store

    opened = open_store(store)
    events = opened.history(image_id)
    if not events:
        raise UsageError(f"{opened.location} knows no image {image_id!r}; ids are SOURCE/PATH, as in its index")
    if as_json:
        print_json([dataclasses.asdict(event) for event in events])
    else:
        print_table(
            ("generation", "action", "status", "shard", "row", "bytes", "note"),
            [
                (
                    *(str(event.generation), event.action, event.status, event.shard or ""),
                    *("" if number is None else f"{number:,}" for number in (event.row, event.size)),
                    ": ".join(filter(None, ("current" if event.counts else "", event.reason))),
                )
                for event in events
            ],
        )
    return 0


def _duration(seconds: float) -> str:
    """``40 s``, ``12 min``, ``3.5 h``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:,.1f} h"
