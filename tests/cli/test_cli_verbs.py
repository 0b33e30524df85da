"""Verbs whose options are named in a signature: the command line has the same names and defaults, and all are
documented."""

import inspect
from collections.abc import Callable
from typing import Any

import click
import pytest

import depthsieve
from depthsieve_cli.main import cli

assert isinstance(cli, click.Group)
VERBS: dict[str, Callable[..., Any]] = {
    "features labels": depthsieve.add_features,
    "import maps labels --images photos": depthsieve.import_labels,
    "fuse labels others -o fused": depthsieve.fuse,
    "calibrate --teacher tiny -o tiny.safetensors": depthsieve.calibrate,
    "recalibrate labels": depthsieve.recalibrate,
    "verify labels": depthsieve.verify,
}
"""By the shortest line that calls each."""

OF_THE_COMMAND_LINE = {"as_json", "quiet", "verbose"}
OF_PYTHON = {"progress"}


@pytest.mark.parametrize("line", VERBS)
def test_options_and_their_defaults_are_those_of_the_function(line: str) -> None:
    verb, *arguments = line.split()
    given = cli.commands[verb].make_context(verb, arguments).params
    parameters = inspect.signature(VERBS[line]).parameters
    assert set(given) - OF_THE_COMMAND_LINE == set(parameters) - OF_PYTHON
    for name, one in parameters.items():
        assert one.default is one.empty or name in OF_PYTHON or given[name] == one.default, name


@pytest.mark.parametrize("line", VERBS)
def test_options_are_keywords_each_with_a_type_and_a_line_in_the_docstring(line: str) -> None:
    documented = inspect.getdoc(VERBS[line]) or ""
    for name, one in inspect.signature(VERBS[line]).parameters.items():
        assert one.annotation is not one.empty
        assert one.kind is (one.POSITIONAL_OR_KEYWORD if one.default is one.empty else one.KEYWORD_ONLY)
        assert f"\n    {name}: " in documented, name


@pytest.mark.parametrize("line", VERBS)
def test_the_summary_fits_its_line(line: str) -> None:
    command = cli.commands[line.split()[0]]
    assert command.get_short_help_str(limit=60) == command.short_help
    assert (command.help or "").partition("\n\n")[0].endswith(".")
