"""The README is short, and names what is there; tests/docs/test_pages.py runs what it shows."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from depthsieve_cli.main import cli

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_it_is_short_and_so_is_its_training_example() -> None:
    assert len(README.splitlines()) <= 120
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len([line for line in example.splitlines() if line.strip()]) == 10


@pytest.mark.parametrize("target", re.findall(r"^\$ make (\w+)", README, re.MULTILINE))
def test_make_targets_exist(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_the_command_line_answers_with_its_version() -> None:
    result = CliRunner().invoke(cli, ["--version"])
    assert result.exit_code == 0 and result.output == "depthsieve, version 0.1.0\n"
