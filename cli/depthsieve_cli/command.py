"""What every command has: ``--quiet``, ``--verbose``, and options that a settings file sets."""

import logging
import sys
from typing import Any

import click
from click.core import ParameterSource

from depthsieve.core.waiting import telling
from depthsieve_cli.settings import shown_settings

QUIET = "depthsieve.quiet"


class Verb(click.Command):
    """A command of depthsieve."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.params += [
            click.Option(
                ["-q", "--quiet"],
                is_flag=True,
                expose_value=False,
                callback=_be_quiet,
                help="No progress and no notes; results, failures and errors only.",
            ),
            click.Option(
                ["-v", "--verbose"],
                is_flag=True,
                expose_value=False,
                callback=_be_verbose,
                help="Log every step on stderr.",
            ),
        ]

    def invoke(self, ctx: click.Context) -> Any:
        """See :meth:`click.Command.invoke`. Says first what comes from a settings file."""
        from_file = {
            one.opts[-1]: ctx.params[one.name]
            for one in self.params
            if one.name in ctx.params and ctx.get_parameter_source(one.name) is ParameterSource.DEFAULT_MAP
        }
        if from_file:
            note(shown_settings(from_file))
        with telling(progress_for(bool(ctx.params.get("as_json")))):
            return super().invoke(ctx)


def _be_quiet(ctx: click.Context, option: click.Parameter, value: bool) -> None:
    if value:
        ctx.meta[QUIET] = True


def _be_verbose(ctx: click.Context, option: click.Parameter, value: bool) -> None:
    if value:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
        logger = logging.getLogger("depthsieve")
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)


def is_quiet() -> bool:
    """Whether the command that runs was told to be quiet."""
    ctx = click.get_current_context(silent=True)
    return ctx is not None and bool(ctx.meta.get(QUIET))


def progress_for(as_json: bool) -> bool:
    """Whether the command that runs shows progress: not as JSON, and not where it is told to be quiet."""
    return not as_json and not is_quiet()


def note(line: str) -> None:
    """A line on stderr that a person should know of; nothing where the command is told to be quiet."""
    if not is_quiet():
        click.echo(f"Note: {line}", err=True)
