"""Options of several commands, each declared once, and how a command shows its options in groups.

What `label` and `plan` share is made of :class:`~depthsieve.planning.options.LabelOptions`, which declares each option.
"""

from collections.abc import Callable, Collection
from typing import Any

import click

from depthsieve.core.settings import Declared, declared
from depthsieve.planning.options import GROUPS
from depthsieve.runners.choose import AUTO, RUNNERS
from depthsieve_cli import completion
from depthsieve_cli.command import Verb

OUTPUT = "Output"

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


class GroupedOption(click.Option):
    """An option that stands in a ``group`` of its command's help."""

    def __init__(self, *names: Any, group: str, **settings: Any) -> None:
        super().__init__(*names, **settings)
        self.group = group


class GroupedCommand(Verb):
    """A command whose help lists its options in groups; those without one come last, with :data:`OUTPUT`."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """See :meth:`click.Command.format_options`."""
        params = self.get_params(ctx)
        own = dict.fromkeys(getattr(one, "group", OUTPUT) for one in params)
        order = (*GROUPS, *(one for one in own if one not in (*GROUPS, OUTPUT)), OUTPUT)
        groups: dict[str, list[tuple[str, str]]] = {group: [] for group in order}
        for parameter in params:
            record = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
            if record is not None:
                groups[getattr(parameter, "group", OUTPUT)].append(record)
        for group, records in groups.items():
            if records:
                with formatter.section(group):
                    formatter.write_dl(records)


def option(group: str, *names: str, **settings: Any) -> Decorator:
    """An option of a :class:`GroupedCommand`, as :func:`click.option` makes one."""
    return click.option(*names, cls=GroupedOption, group=group, **settings)


def as_json_option(what: str = "the summary", also: str = "no progress bar") -> Decorator:
    """The option ``--json`` of every command: prints ``what``, and what it means ``also``."""
    return option(OUTPUT, "--json", "as_json", is_flag=True, help=f"Print {what} as JSON{also and '; '}{also}.")


def allow_failed_option() -> Decorator:
    """The option ``--allow-failed`` of ``label`` and ``plan``: failed images do not change the exit code."""
    return option(
        OUTPUT,
        "--allow-failed",
        is_flag=True,
        help="Exit with 0, not 3, where all that is left are images that failed: for schedulers, which take 3 for a "
        "job to retry.",
    )


def from_settings(settings: type[Any], *, only: Collection[str] = (), without: Collection[str] = ()) -> Decorator:
    """Options for what a dataclass of settings declares: for all of it, ``only`` some, or all ``without`` some."""
    made = [_option(one) for one in declared(settings) if one.name not in without and (one.name in only or not only)]

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for one in reversed(made):
            command = one(command)
        return command

    return decorate


def _option(one: Declared) -> Decorator:
    told: dict[str, Any] = {"help": one.about.help, "default": one.default, "metavar": one.about.metavar}
    name = one.name.replace("_", "-")
    names = f"--{name}"
    if one.kind is bool:
        told["is_flag"] = True
        names += f"/--no-{name}" if one.default is None else ""
    elif one.kind == tuple[str, ...]:
        told["multiple"] = True
    else:
        told |= {"type": click.Choice(one.choices) if one.choices else one.kind, "show_default": True}
    if one.about.unset:
        told["help"] += f"  [default: {one.about.unset}]"
    return option(one.about.group, names, **told | TOLD_OTHERWISE.get(one.name, {}))


_KINDS = ". ".join(f"{name}: {kind.summary}" for name, kind in RUNNERS.items())

TOLD_OTHERWISE: dict[str, dict[str, Any]] = {
    "runner": {
        "type": click.Choice((AUTO, *RUNNERS)),
        "help": f"{_KINDS}. {AUTO}: local for one worker without --address, else ray.",
    },
    "teacher": {"shell_complete": completion.teachers},
    "second_teacher": {"shell_complete": completion.teachers},
    "signals": {"shell_complete": completion.signals},
}
"""What click is told of an option that its declaration, on a lower floor, cannot know."""


def source_and_store(command: Callable[..., Any]) -> Callable[..., Any]:
    """The arguments SOURCE and STORE."""
    return click.argument("source")(click.argument("store")(command))
