"""``depthsieve export``: labels as files that another tool reads."""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from depthsieve.export.table import TARGETS, TargetOption, all_options
from depthsieve_cli.choices import OUTPUT, GroupedCommand, as_json_option, option
from depthsieve_cli.command import note, progress_for
from depthsieve_cli.output import count, print_failures, print_json, size

if TYPE_CHECKING:
    from depthsieve.export.settings import ExportSummary

CHOICE = "What is exported"


class ExportCommand(GroupedCommand):
    """Lists the targets in its help, in groups."""

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_help_text(ctx, formatter)
        for group in dict.fromkeys(row.group for row in TARGETS.values()):
            with formatter.section(f"Targets ({group.lower()})"):
                formatter.write_dl([(row.name, f"{row.summary}.") for row in TARGETS.values() if row.group == group])


def target_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """An option for each that a target declares."""
    for one, targets in reversed([*all_options()]):
        command = _option(one, targets)(command)
    return command


def _option(one: TargetOption, targets: tuple[str, ...]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    default = one.unset if one.default is None else str(one.default)
    shown = f"{one.help}  [default: {default}]" if default and one.kind is not bool else one.help
    kind: dict[str, Any] = {"type": click.Choice(one.choices) if one.choices else one.kind}
    if one.kind is bool:
        kind = {"is_flag": True}
    name = f"--{one.name.replace('_', '-')}"
    group = f"For {', '.join(targets)}"
    return option(group, name, default=None, metavar=one.metavar, help=shown, **kind)


@click.command(
    cls=ExportCommand,
    short_help="Write labels as files that another tool reads.",
    epilog="Example: depthsieve export labels/ depth_png/ --for png --mask 0.1",
)
@click.argument("store")
@click.argument("out")
@option(
    CHOICE,
    "--for",
    "target",
    required=True,
    type=click.Choice(tuple(TARGETS)),
    metavar="TARGET",
    help="What the files are for; one of the targets above.",
)
@option(CHOICE, "--subset", metavar="FILE", help="Only images that this file of `curate` keeps.")
@option(CHOICE, "--where", metavar="SQL", help="Only images that this is true of, over the columns that view has.")
@option(CHOICE, "--reliability", metavar="NAME", help="Reliability of a layer that recalibrate made.")
@option(
    CHOICE,
    "--mask",
    type=float,
    metavar="DROP",
    help="Share of each image's valid pixels, the least reliable, that becomes invalid.  [default: none]",
)
@option(
    CHOICE,
    "--resolution",
    type=click.Choice(("label", "source")),
    help="Maps as large as the label, or as the upright photo.  [default: the target's]",
)
@option(
    CHOICE,
    "--link",
    type=click.Choice(("symlink", "hard")),
    help="Link to photos that need no change.  [default: copy them]",
)
@target_options
@option(OUTPUT, "--threads", type=int, metavar="N", help="Images encoded side by side.  [default: one a core]")
@option(OUTPUT, "--dry-run", is_flag=True, help="Write nothing; tell what it would take.")
@as_json_option()
def export(
    store: str,
    out: str,
    target: str,
    link: str | None,
    as_json: bool,
    subset: str | None,
    where: str | None,
    reliability: str | None,
    mask: float | None,
    resolution: Any,
    threads: int | None,
    dry_run: bool,
    **options: Any,
) -> int:
    """Write the labels of STORE into the folder OUT, as TARGET reads them.

    OUT gets a README that says what was written and how to read it. Run it again to resume, or to add what was labelled
    since.

    Exit codes: 0 all done; 1 could not be written; 3 done, but some images could not be exported.
    """
    from depthsieve.export.run import export_labels  # pyarrow, zarr and OpenCV take a second

    summary = export_labels(
        store,
        out,
        target=target,
        subset=subset,
        where=where,
        reliability=reliability,
        mask=mask,
        resolution=resolution,
        link=link or "copy",  # type: ignore[arg-type]
        threads=threads,
        options={name: value for name, value in options.items() if value is not None and value is not False},
        dry_run=dry_run,
        progress=progress_for(as_json),
    )
    for line in summary.notes:
        note(line)
    if as_json:
        print_json(dataclasses.asdict(summary))
    else:
        _print(summary)
    return 3 if summary.failed else 0


def _print(summary: "ExportSummary") -> None:
    if summary.dry_run:
        click.echo(
            f"Would write {count(summary.images_now, 'image')} for {summary.target} to {summary.out}: about "
            f"{size(summary.bytes)}, {size(summary.free_bytes)} are free. Nothing was written."
        )
    elif not summary.images_now and not summary.failed:
        click.echo(f"Nothing to do: {summary.out} has all {count(summary.images, 'image')}.")
    else:
        click.echo(f"Wrote {count(summary.images_now, 'image')} for {summary.target} in {summary.seconds:.1f} s.")
        linked = f", {count(summary.photos_linked, 'photo')} linked" if summary.photos_linked else ""
        how = "; its README.md says how to read them" if summary.images else ""
        click.echo(f"{summary.out}: {count(summary.images, 'image')}, {size(summary.bytes)}{linked}{how}.")
    for reason, number in summary.left_out.items():
        first = summary.first_left_out.get(reason, ())
        named = (": " if first else "") + ", ".join(first) + (", ..." if 0 < len(first) < number else "")
        click.echo(f"Left out: {count(number, 'image')} ({reason}){named or '.'}")
    print_failures(summary.failed)
    if summary.failed:
        click.echo(f"{count(len(summary.failed), 'image')} failed; {summary.remedy}.")
