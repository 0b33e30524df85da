"""What the README shows works as it stands."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from labelled import write_photos

from depthsieve_cli.main import cli

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_the_training_example_is_ten_lines_and_runs(tmp_path: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    lines = [line for line in example.splitlines() if line.strip()]
    assert len(lines) == 10
    write_photos(tmp_path / "photos", 9)
    for arguments in (["-m", "depthsieve", "label", "photos", "labels", "--teacher", "tiny"], ["-c", example]):
        done = subprocess.run([sys.executable, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
    masked = re.fullmatch(r"masked (\d+\.\d)% of the pixels, last loss (\d+\.\d+)\n", done.stdout)
    assert masked is not None, done.stdout
    assert 5 < float(masked[1]) <= 10


@pytest.mark.parametrize("line", re.findall(r"^\$ depthsieve (.*?)(?:\s+#.*)?$", README, re.MULTILINE))
def test_commands_are_ones_that_parse(line: str) -> None:
    verb, *arguments = line.split()
    command = cli.commands[verb]
    command.make_context(verb, arguments, resilient_parsing=False)


@pytest.mark.parametrize("target", re.findall(r"^\$ make (\w+)", README, re.MULTILINE))
def test_make_targets_exist(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_linked_files_exist() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).is_file()] == []


def test_the_command_line_answers_with_its_version() -> None:
    result = CliRunner().invoke(cli, ["--version"])
    assert result.exit_code == 0 and result.output == "depthsieve, version 0.1.0\n"
