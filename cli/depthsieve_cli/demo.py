"""``depthsieve demo``: scenes, labels, evaluation, a student and a page to look at."""

from pathlib import Path

import click


@click.command(epilog="Example: depthsieve demo --out demo")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("demo"),
    show_default=True,
    help="Folder for the scenes, the labels and the page.",
)
def demo(out: Path) -> None:
    """Show the whole way on rendered scenes: label them, judge the labels, train a student on them, write a page."""
    from depthsieve.demo import run_demo

    page = run_demo(out)
    click.echo(f"Open {page}")
