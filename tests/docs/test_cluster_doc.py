"""The pages of clusters show each recipe of docs/cluster whole, and what they say to type is what the command takes."""

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from depthsieve_cli.main import cli

DOCS = Path(__file__).parents[2] / "docs"
RECIPES = sorted(path for path in (DOCS / "cluster").iterdir() if path.suffix != ".md")
PAGES = {path.name: path.read_text() for path in [DOCS / "cluster.md", *sorted((DOCS / "cluster").glob("*.md"))]}
BLOCKS = [
    (name, *block)
    for name, page in PAGES.items()
    for block in re.findall(r"^```(\w+)\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_one_page_shows_each_recipe_whole(recipe: Path) -> None:
    block = rf"^\[{recipe.name}\]\({recipe.name}\):\n\n```\w+\n(.*?)^```$"
    shown = [text for page in PAGES.values() for text in re.findall(block, page, re.DOTALL | re.MULTILINE)]
    assert shown == [recipe.read_text()], f"the page differs from {recipe}, which the tests run"


def test_what_looks_like_a_recipe_is_a_file() -> None:
    files = {recipe.read_text() for recipe in RECIPES}
    loose = [text for _, language, text in BLOCKS if language not in ("sh", "text") or text.startswith("#!")]
    assert loose and [text for text in loose if text not in files] == []


def strings(value: Any) -> list[str]:
    """What a YAML document holds that could be a command: its strings, and its lists of strings as one."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        command = [one for key in ("command", "args") for one in value.get(key, [])]
        rest = [one for key, below in value.items() if key not in ("command", "args") for one in strings(below)]
        return [*rest, shlex.join(command) if command[:1] == ["depthsieve"] else "\n".join(command)]
    return [text for one in value for text in strings(one)] if isinstance(value, list) else []


def commands(text: str) -> list[str]:
    """The command lines of depthsieve in a script, each of one line."""
    text = re.sub(r"^\s*#.*", "", text.replace("\\\n", " "), flags=re.MULTILINE)
    return re.findall(r"(?:^|exec |['/])(depthsieve [a-z-].*?)(?= > |'$| &$|&&|  #|$)", text, re.MULTILINE)


def texts(recipe: Path) -> list[str]:
    return strings(yaml.safe_load(recipe.read_text())) if recipe.suffix == ".yaml" else [recipe.read_text()]


COMMANDS = [
    *(
        pytest.param(line, id=f"{path.name}: {line}")
        for path in RECIPES
        for text in texts(path)
        for line in commands(text)
    ),
    *(
        pytest.param(line, id=f"{name}: {line}")
        for name, language, text in BLOCKS
        if language == "sh" and not text.startswith("#!")
        for line in commands(text)
    ),
]
VARIABLES = {
    "$DEVICE": "cpu",
    "$SLURM_CPUS_PER_TASK": "8",
    '"${part[@]}"': "--part 1/2",
    "$((JOB_COMPLETION_INDEX + 1))/$PARTS": "1/16",
}


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_are_ones_that_parse(line: str) -> None:
    for name, value in VARIABLES.items():
        line = line.replace(name, value)
    _, verb, *arguments = shlex.split(line)
    if verb != "--version":
        cli.commands[verb].make_context(verb, arguments)


def test_commands_are_found() -> None:
    found = [str(one.values[0]) for one in COMMANDS]
    for verb, least in {"plan": 3, "label": 8, "status": 2, "verify": 1}.items():
        assert sum(line.split()[1] == verb for line in found) >= least, found
    with pytest.raises(click.NoSuchOption):
        test_commands_are_ones_that_parse("depthsieve label a b --allow-failled")


BY_HAND = "depthsieve label photos labels --teacher depth-anything-v2-small --device cuda"
"""On one machine, by hand: nothing retries it, and a reader should see exit code 3."""


@pytest.mark.parametrize(
    "line", sorted({str(one.values[0]) for one in COMMANDS if " label " in str(one.values[0])} - {BY_HAND})
)
def test_no_job_is_retried_because_of_failed_images(line: str) -> None:
    assert "--allow-failed" in line


@pytest.mark.parametrize(
    "script", [recipe for recipe in RECIPES if recipe.suffix == ".sh"], ids=lambda script: script.name
)
def test_scripts_are_bash_and_slurm_reads_their_options(script: Path) -> None:
    assert subprocess.run(["bash", "-n", script], capture_output=True, check=False).stderr == b""
    lines = script.read_text().splitlines()
    first = next(number for number, line in enumerate(lines) if not line.startswith("#"))
    late = [line for line in lines[first:] if line.startswith("#SBATCH")]
    assert late == [], "sbatch reads no options after the first command"


@pytest.mark.parametrize("block", sorted({text for _, language, text in BLOCKS if language == "sh"}))
def test_what_to_type_is_bash(block: str) -> None:
    assert subprocess.run(["bash", "-n"], input=block.encode(), capture_output=True, check=False).stderr == b""
