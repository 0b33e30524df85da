"""``depthsieve demo``: scenes, labels, evaluation, a student and a page to look at."""

import dataclasses
from pathlib import Path

import click

from depthsieve.demo.settings import DemoSettings
from depthsieve_cli.choices import as_json_option
from depthsieve_cli.command import Verb, progress_for
from depthsieve_cli.output import print_json, print_table

DEFAULTS = DemoSettings()


@click.command(
    cls=Verb,
    short_help="Label, judge, curate and train on rendered scenes.",
    epilog="Example: depthsieve demo --out demo",
)
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    default=Path("demo"),
    show_default=True,
    help="Folder for the scenes, the labels and the page. Run again there, it keeps what is done.",
)
@click.option("--scenes", default=DEFAULTS.scenes, show_default=True, metavar="N", help="How many scenes to render.")
@click.option("--seed", default=DEFAULTS.seed, show_default=True, metavar="N", help="Seed of the first scene.")
@click.option(
    "--steps", default=DEFAULTS.steps, show_default=True, metavar="N", help="Steps of the student's training."
)
@click.option(
    "--teacher",
    default=DEFAULTS.teacher,
    show_default=True,
    metavar="NAME",
    help="Preset, hub id, local folder, or package.module:factory.",
)
@as_json_option("the numbers")
def demo(out: Path, scenes: int, seed: int, steps: int, teacher: str, as_json: bool) -> None:
    """Show the whole way on rendered scenes: label them, judge the labels, train a student on them, write a page."""
    settings = DemoSettings(scenes, seed, steps, teacher)
    from depthsieve.demo.page import label_rows, student_rows
    from depthsieve.demo.run import run_demo  # torch and transformers take seconds

    result = run_demo(out, progress=progress_for(as_json), settings=settings)
    if as_json:
        print_json(dataclasses.asdict(result))
        return
    labels, student = result.labels, result.student
    click.echo(f"\nAbsRel of {labels.scenes} labels as pixels are dropped ({labels.delta1:.1%} of all within 25%):")
    head, *rows = label_rows(result)
    print_table(head, rows)
    click.echo(f"\nThe student: {steps} steps, loss from {student.loss_start:.3f} to {student.loss_end:.3f}.")
    head, *rows = student_rows(result)
    print_table(head, rows)
    click.echo(f"\nDone in {result.seconds:.0f} s. Contact sheet: {result.sheet}")
    click.echo(f"Open {result.page}")
