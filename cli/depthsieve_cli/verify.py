"""``depthsieve verify``: read every byte of a store, and mend what is damaged."""

import dataclasses
from typing import TYPE_CHECKING

import click

from depthsieve_cli.output import count, print_failures, print_json

if TYPE_CHECKING:
    from depthsieve.jobs.verify.findings import Finding
    from depthsieve.jobs.verify.repair import VerifyReport

SHOWN = 50
REMEDIES = {
    "restore": "--repair puts the other copy in its place",
    "record": "--repair writes it anew from its group, or labels the shard again",
    "relabel": "--repair labels the shard again",
    "index": "--repair writes it anew",
    "remove": "--repair removes it",
    "layer record": "--repair writes it anew from its group, or takes the shard out of the layer",
    "recalibrate": "--repair takes the shard out of the layer, and `depthsieve recalibrate` adds it again",
    "refill": "--repair takes the shard out of the layer, and `depthsieve features` adds it again",
    "store images": "--repair takes the shard out of the layer, and `depthsieve label --store-images` adds it again",
    "lost": "--repair takes the shard out of the layer: its signals are lost, its labels stand",
    "none": "left as it is",
}


@click.command(epilog="Example: depthsieve verify labels/ --repair")
@click.argument("store")
@click.option("--repair", is_flag=True, help="Mend what is damaged; label again just the shards that need it.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON; no progress bar.")
def verify(store: str, repair: bool, as_json: bool) -> int:
    """Read every byte of STORE: checksums, records, rows, copies, and what nothing explains.

    Exit codes: 0 sound, or all mended; 1 damage is left; 3 sound, but some images stand failed.
    """
    from depthsieve.jobs.verify.repair import verify as run_verify  # torch and transformers take seconds

    report = run_verify(store, repair=repair, progress=not as_json)
    if as_json:
        print_json(dataclasses.asdict(report) | {"sound": report.sound})
    else:
        _print_report(report, repair)
    return 1 if not report.sound else 3 if report.failed else 0


def _print_report(report: "VerifyReport", repair: bool) -> None:
    for finding in report.findings[:SHOWN]:
        click.echo(f"  {_words(finding)}: {finding.key}: {finding.problem}" + _remedy(finding, repair))
    if len(report.findings) > SHOWN:
        click.echo(f"  ... and {len(report.findings) - SHOWN:,} more; --json names all of them")
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
        click.echo("Error: damage was found; `depthsieve verify --repair` mends what can be mended", err=True)
    elif not report.sound:
        click.echo("Error: not all could be mended; restore the files named from a copy of the store", err=True)


def _print_taken_out(report: "VerifyReport") -> None:
    """What a repair took out of layers, and what that means."""
    shards: dict[str, list[str]] = {}
    for layer, shard_id in report.taken_out:
        shards.setdefault(layer, []).append(shard_id)
    for layer, out in shards.items():
        named = ", ".join(out[:SHOWN]) + (f" and {len(out) - SHOWN:,} more" if len(out) > SHOWN else "")
        gone = f"Layer {layer} lost {count(len(out), 'shard')} ({named})"
        if layer == "signals":
            click.echo(f"{gone}: raw signals cannot be made again without labelling anew; the labels stand.")
        elif layer == "features":
            click.echo(f"{gone}; add them again: depthsieve features {report.store}")
        elif layer == "images":
            click.echo(f"{gone}; add them again: depthsieve label SOURCE {report.store} --store-images")
        else:
            click.echo(f"{gone}; add them again: depthsieve recalibrate {report.store} --name {layer}")


def _words(finding: "Finding") -> str:
    return "harmless" if finding.harmless else "damaged"


def _remedy(finding: "Finding", repair: bool) -> str:
    return "" if repair else f" ({REMEDIES[finding.remedy]})"
