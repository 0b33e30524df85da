"""``depthsieve completion``: the shell completes commands, options, teachers, signals, recipes and ids."""

import contextlib

import click
from click.shell_completion import get_completion_class

from depthsieve_cli.command import Verb

SHELLS = ("bash", "zsh", "fish")
SHOWN_IDS = 200


@click.command(
    cls=Verb,
    short_help="Print the script that lets a shell complete commands.",
    epilog="Example: depthsieve completion bash",
)
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print the script that makes SHELL complete `depthsieve`.

    \b
    bash: eval "$(depthsieve completion bash)"     in ~/.bashrc
    zsh:  eval "$(depthsieve completion zsh)"      in ~/.zshrc
    fish: depthsieve completion fish | source      in ~/.config/fish/config.fish
    """
    made = get_completion_class(shell)
    assert made is not None
    group = click.get_current_context().find_root().command
    click.echo(made(group, {}, "depthsieve", "_DEPTHSIEVE_COMPLETE").source())


def teachers(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Names of teachers that begin so."""
    from depthsieve.teachers import IN_PACKAGE, PRESETS, plug_ins

    names = [*(one.name for one in (*IN_PACKAGE, *PRESETS)), *(one.name for one in plug_ins())]
    return [name for name in names if name.startswith(incomplete)]


def signals(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """The list so far, with each signal that may come next."""
    from depthsieve.reliability.kinds import NONE, SIGNALS

    before, comma, last = incomplete.rpartition(",")
    known = [name for name in (*SIGNALS, NONE) if name not in before.split(",")]
    return [f"{before}{comma}{name}" for name in known if name.startswith(last)]


def recipes(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Names of recipes that begin so."""
    from depthsieve.sources.recipes import recipe_names

    return [name for name in recipe_names() if name.startswith(incomplete)]


def ids(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Ids of images of the command's STORE that begin so; none where it cannot be read."""
    found: list[str] = []
    with contextlib.suppress(Exception):  # whatever is wrong, the command itself will tell
        from depthsieve.store import open_store

        for image in open_store(ctx.params["store"] or ctx.args[0]):  # while an option lacks its value, in args
            if image.startswith(incomplete):
                found.append(image)
            if len(found) == SHOWN_IDS:
                break
    return found
