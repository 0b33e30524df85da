"""A settings file, for what is said again and again: ``depthsieve.toml``, or ``[tool.depthsieve]`` of pyproject.toml.

It lies in the folder that the command is run in. Options of all commands stand at its top, those of one command in a
table called like it, all by their long names without the dashes; what the command line says wins::

    teacher = "depth-anything-v2-large"
    [evaluate]
    scale = 1000
"""

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click

FILE = "depthsieve.toml"
PROJECT = "pyproject.toml"


def settings_for(group: click.Group, folder: Path) -> dict[str, dict[str, Any]]:
    """What the settings file of a folder sets, by command and by the name of its parameter: click's default map.

    Raises :class:`click.UsageError` for a file that is no TOML, or that sets what no command has, and
    :class:`click.BadParameter` for a value that an option does not take; each names the file.
    """
    found = _read(folder)
    if found is None:
        return {}
    where, settings = found
    tables = {name: value for name, value in settings.items() if isinstance(value, Mapping)}
    for name in tables:
        if name not in group.commands:
            raise click.UsageError(f"{where}: there is no command {name!r}{_near(name, group.commands)}")
    shared = {name: value for name, value in settings.items() if name not in tables}
    options = {name: _options(command) for name, command in group.commands.items()}
    for name in shared:
        if not any(name in known for known in options.values()):
            every = {one for known in options.values() for one in known}
            raise click.UsageError(f"{where}: no command has an option {name!r}{_near(name, every)}")
    chosen: dict[str, dict[str, Any]] = {}
    for command, known in options.items():
        own = tables.get(command, {})
        for name in own:
            if name not in known:
                raise click.UsageError(f"{where}: {command} has no option {name!r}{_near(name, known)}")
        said = {name: value for name, value in shared.items() if name in known} | dict(own)
        chosen[command] = {
            str(known[name].name): _checked(group.commands[command], known[name], value, f"{where}, {command}")
            for name, value in said.items()
        }
    return {command: values for command, values in chosen.items() if values}


def shown_settings(values: Mapping[str, Any]) -> str:
    """The line that tells what a settings file sets."""
    words = [option if value is True else f"{option} {value}" for option, value in values.items()]
    return f"from the settings file: {', '.join(words)}"


def _read(folder: Path) -> tuple[str, Mapping[str, Any]] | None:
    for name in (FILE, PROJECT):
        try:
            text = (folder / name).read_bytes().decode("utf-8-sig")
            content: Any = tomllib.loads(text)
        except FileNotFoundError:
            continue
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
            if name == PROJECT:  # it is not ours, and others will tell of it
                continue
            raise click.UsageError(f"{name}: {error}") from error
        if name == PROJECT:
            content = content.get("tool", {})
            content = content.get("depthsieve") if isinstance(content, Mapping) else None
        if isinstance(content, Mapping):
            return (name if name == FILE else f"{name} [tool.depthsieve]"), content
    return None


def _options(command: click.Command) -> dict[str, click.Option]:
    """A command's options by their long names, without those that are about one call alone."""
    found: dict[str, click.Option] = {}
    for one in command.params:
        if isinstance(one, click.Option) and one.expose_value:
            found |= {name.removeprefix("--"): one for name in one.opts if name.startswith("--")}
    return found


def _checked(command: click.Command, option: click.Option, value: Any, where: str) -> Any:
    if option.is_bool_flag and not isinstance(value, bool):
        raise click.UsageError(f"{where}: {option.opts[-1]} is true or false, not {value!r}")
    try:
        option.type_cast_value(click.Context(command), value)
    except click.BadParameter as error:
        raise click.UsageError(f"{where}: {option.opts[-1]}: {error.message}") from error
    except TypeError as error:
        raise click.UsageError(f"{where}: {option.opts[-1]} does not take {value!r}") from error
    return value


def _near(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, sorted(known), 1)
    return f"; did you mean {near[0]!r}?" if near else ""
