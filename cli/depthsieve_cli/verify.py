"""``depthsieve verify``: read every byte of a store, and repair what is damaged."""

import dataclasses
from typing import TYPE_CHECKING

import click

from depthsieve_cli.choices import as_json_option
from depthsieve_cli.command import Verb, progress_for
from depthsieve_cli.output import count, print_failures, print_first, print_json

if TYPE_CHECKING:
    from depthsieve.jobs.verify.findings import Finding
    from depthsieve.jobs.verify.repair import VerifyReport

SHOWN = 50
REMEDIES = {
    "restore": "--repair restores it from its other copy",
    "record": "--repair rewrites it from its group, or labels the shard again",
    "relabel": "--repair labels the shard again",
    "index": "--repair rewrites it",
    "remove": "--repair removes it",
    "layer record": "--repair rewrites it from its group, or takes the shard out of the layer",
    "none": "left as it is",
}
LOST = "it cannot be computed again without new labels; the labels are kept"


@click.command(
    cls=Verb,
    short_help="Check every byte of a store; --repair fixes it.",
    epilog="Example: depthsieve verify labels/ --repair",
)
@click.argument("store")
@click.option("--repair", is_flag=True, help="Repair what is damaged; label only those shards again that need it.")
@as_json_option("the report")
def verify(store: str, repair: bool, as_json: bool) -> int:
    """Read every byte of a store, and repair what is damaged.

    Checks checksums, records, rows and copies, and names files that do not belong to STORE.

    Exit codes: 0 sound, or all repaired; 1 damage is left; 3 sound, but some images failed.
    """
    from depthsieve.jobs.verify.repair import verify as run_verify  # torch and transformers take seconds

    report = run_verify(store, repair=repair, progress=progress_for(as_json))
    if as_json:
        print_json(dataclasses.asdict(report) | {"sound": report.sound})
    else:
        _print_report(report, repair)
    return 1 if not report.sound else 3 if report.failed else 0


def _print_report(report: "VerifyReport", repair: bool) -> None:
    print_first([f"{_words(one)}: {one.key}: {one.problem}{_remedy(one, repair)}" for one in report.findings], SHOWN)
    if repair and report.relabelled:
        click.echo(f"{count(report.relabelled, 'image')} labelled again.")
    _print_taken_out(report)
    for finding in report.left if repair else ():
        click.echo(f"  still {_words(finding)}: {finding.key}: {finding.problem}")
    read = f"{count(report.files, 'file')}, {report.bytes / 1e6:,.1f} MB read"
    state = "sound" if report.sound else "damaged"
    click.echo(f"{report.store}: {count(report.shards, 'shard')}, {count(report.images, 'image')}, {read}: {state}.")
    print_failures(report.failed)
    if not report.sound and not repair:
        click.echo("Error: damage was found; `depthsieve verify --repair` repairs what can be repaired", err=True)
    elif not report.sound:
        click.echo("Error: not all could be repaired; restore the files named from a copy of the store", err=True)


def _print_taken_out(report: "VerifyReport") -> None:
    """What a repair took out of layers, and what that means."""
    shards: dict[tuple[str, str | None], list[str]] = {}
    for one in report.taken_out:
        shards.setdefault((one.layer, one.add_again), []).append(one.shard)
    for (layer, add_again), out in shards.items():
        named = ", ".join(out[:SHOWN]) + (f" and {len(out) - SHOWN:,} more" if len(out) > SHOWN else "")
        then = f"; add them again: {add_again}" if add_again else f"; {LOST}."
        click.echo(f"Layer {layer} lost {count(len(out), 'shard')} ({named}){then}")


def _words(finding: "Finding") -> str:
    return "harmless" if finding.harmless else "damaged"


def _remedy(finding: "Finding", repair: bool) -> str:
    if repair:
        return ""
    if finding.remedy == "take out":
        then = f"`{finding.add_again}` adds it again" if finding.add_again else LOST
        return f" (--repair takes the shard out of the layer; {then})"
    return f" ({REMEDIES[finding.remedy]})"
