"""Every command explains itself: help, an example that works as written, and defaults that are the library's."""

import dataclasses
import shlex
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from depthsieve.core.settings import Declared, declared
from depthsieve.demo.settings import DemoSettings
from depthsieve.evaluation.settings import EvaluateSettings
from depthsieve.planning.options import GROUPS, LabelOptions
from depthsieve.runners.choose import AUTO, RUNNERS
from depthsieve_cli.choices import OUTPUT
from depthsieve_cli.main import cli

assert isinstance(cli, click.Group)
COMMANDS: dict[str, click.Command] = {"": cli, **cli.commands}
OPTIONS = [
    pytest.param(option, id=f"{name} {option.opts[0]}")
    for name, command in COMMANDS.items()
    for option in command.params
    if isinstance(option, click.Option)
]
SETTINGS: dict[str, tuple[type[Any], list[str], set[str]]] = {
    # the dataclass behind a command, arguments that it cannot do without, and what is the command line's own
    "label": (LabelOptions, ["photos", "labels"], {"source", "store", "grace", "allow_failed", "as_json"}),
    "demo": (DemoSettings, [], {"out", "as_json"}),
    "evaluate": (
        EvaluateSettings,
        ["labels", "--ground-truth", "depth"],
        {"store", "ground_truth", "out", "reliability", "as_json"},
    ),
}
FIELDS = [
    pytest.param(verb, field, id=f"{verb} {field.name}")
    for verb, (settings, _, _) in SETTINGS.items()
    for field in dataclasses.fields(settings)
]
LABEL = {option.name: option for option in cli.commands["label"].params if isinstance(option, click.Option)}


def help_of(name: str) -> str:
    """What ``depthsieve NAME --help`` prints, in a wide terminal."""
    result = CliRunner().invoke(cli, [*name.split(), "--help"], prog_name="depthsieve", terminal_width=200)
    assert result.exit_code == 0
    return result.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_help_says_what_the_command_does(name: str) -> None:
    purpose = " ".join((COMMANDS[name].help or "").split("\n\n")[0].split())
    assert len(purpose) > 20
    assert purpose in " ".join(help_of(name).split())


@pytest.mark.parametrize("name", cli.commands)
def test_the_list_of_commands_shows_each_summary_whole(name: str) -> None:
    summary = cli.commands[name].short_help or ""
    assert 20 < len(summary) <= 60
    shown = CliRunner().invoke(cli, ["--help"], terminal_width=80).stdout.splitlines()
    assert any(line.split() == [name, *summary.split()] for line in shown)


def test_options_of_label_are_shown_in_groups() -> None:
    shown = help_of("label")
    places = [shown.index(f"\n{group}:\n") for group in (*GROUPS, OUTPUT)]
    assert places == sorted(places)
    some = {"--size": 0, "--signals": 1, "--prune": 2, "--device": 3, "--grace": 3, "--json": 4}
    for option, group in some.items():
        assert places[group] < shown.index(f"\n  {option} ") < [*places, len(shown)][group + 1]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_ends_with_an_example_that_parses(name: str) -> None:
    example = (COMMANDS[name].epilog or "").removeprefix("Example: ")
    assert help_of(name).rstrip().endswith(f"Example: {example}")
    program, verb, *arguments = shlex.split(example)
    assert program == "depthsieve"
    assert verb == name or not name
    cli.commands[verb].make_context(verb, arguments)  # raises for an unknown option, a missing or a wrong value


def test_an_example_that_does_not_parse_is_noticed() -> None:
    with pytest.raises(click.NoSuchOption):
        cli.commands["label"].make_context("label", shlex.split("photos/ labels/ --teachr tiny"))


@pytest.mark.parametrize("name", COMMANDS)
def test_arguments_are_explained_in_the_help(name: str) -> None:
    for argument in COMMANDS[name].params:
        if isinstance(argument, click.Argument):
            assert str(argument.name).upper() in (COMMANDS[name].help or "")


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_has_help(option: click.Option) -> None:
    assert len(option.help or "") > 10


@pytest.mark.parametrize("option", OPTIONS)
def test_help_shows_every_default(option: click.Option) -> None:
    if isinstance(option.default, str | int | float | Path) and not option.is_flag:
        assert option.show_default


@pytest.mark.parametrize("verb", SETTINGS)
def test_there_is_an_option_for_every_setting_and_no_other(verb: str) -> None:
    settings, arguments, others = SETTINGS[verb]
    options = set(cli.commands[verb].make_context(verb, [*arguments]).params)
    assert options - others == {field.name for field in dataclasses.fields(settings)}


@pytest.mark.parametrize(("verb", "field"), FIELDS)
def test_defaults_are_those_of_the_library(verb: str, field: "dataclasses.Field[object]") -> None:
    chosen = cli.commands[verb].make_context(verb, [*SETTINGS[verb][1]]).params[field.name]
    assert chosen == field.default
    assert type(chosen) is type(field.default)
    if field.default not in (None, ()) and not isinstance(field.default, bool):
        option = help_of(verb).partition(f"--{field.name.replace('_', '-')} ")[2].partition("\n  --")[0]
        assert f"[default: {field.default}]" in " ".join(option.split())


@pytest.mark.parametrize("one", [*declared(LabelOptions)], ids=lambda one: one.name)
def test_label_has_the_type_and_the_choices_of_the_library(one: Declared) -> None:
    option = LABEL[one.name]
    choices = (AUTO, *RUNNERS) if one.name == "runner" else one.choices
    if choices:
        assert isinstance(option.type, click.Choice) and tuple(option.type.choices) == choices
    else:
        assert option.multiple == (one.kind == tuple[str, ...])
        assert type(option.type) is type(click.types.convert_type(str if option.multiple else one.kind))
