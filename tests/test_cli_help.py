"""Every command explains itself: help, an example that works as written, and defaults that are the library's."""

import dataclasses
import shlex
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from depthsieve.options import LabelOptions
from depthsieve_cli.main import cli

assert isinstance(cli, click.Group)
COMMANDS: dict[str, click.Command] = {"": cli, **cli.commands}
OPTIONS = [
    pytest.param(option, id=f"{name} {option.opts[0]}")
    for name, command in COMMANDS.items()
    for option in command.params
    if isinstance(option, click.Option)
]
LABEL = {option.name: option for option in cli.commands["label"].params if isinstance(option, click.Option)}


def help_of(name: str) -> str:
    """What ``depthsieve NAME --help`` prints, in a wide terminal."""
    result = CliRunner().invoke(cli, [*name.split(), "--help"], prog_name="depthsieve", terminal_width=200)
    assert result.exit_code == 0
    return result.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_help_says_what_the_command_does(name: str) -> None:
    purpose = COMMANDS[name].get_short_help_str(limit=200)
    assert len(purpose) > 20
    assert purpose.removesuffix(".") in help_of(name)


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


def test_label_has_an_option_for_every_field_and_no_other() -> None:
    assert set(LABEL) - {"as_json"} == {field.name for field in dataclasses.fields(LabelOptions)}


@pytest.mark.parametrize("field", dataclasses.fields(LabelOptions), ids=lambda field: field.name)
def test_label_defaults_are_those_of_label_options(field: "dataclasses.Field[object]") -> None:
    context = cli.commands["label"].make_context("label", ["photos", "labels"])
    assert context.params[field.name] == field.default
    assert type(context.params[field.name]) is type(field.default)
    if field.default is not None and not isinstance(field.default, bool):
        option = help_of("label").partition(f"--{field.name.replace('_', '-')} ")[2].partition("\n  --")[0]
        assert f"[default: {field.default}]" in " ".join(option.split())


@pytest.mark.parametrize("name", ["oversize", "runner"])
def test_label_offers_only_choices_that_the_library_takes(name: str) -> None:
    choices = LABEL[name].type
    assert isinstance(choices, click.Choice)
    for choice in choices.choices:
        assert getattr(LabelOptions(**{name: choice}), name) == choice
