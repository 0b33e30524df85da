"""Completion by the shell: the script of each, and values of options."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from commandline import command
from storemaker import Picture, make_store


def completed(*words: str, cwd: Path | None = None) -> list[str]:
    """What bash would be offered for the last of the words."""
    line = ["depthsieve", *words]
    asked = {"_DEPTHSIEVE_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(line), "COMP_CWORD": str(len(words))}
    code = "from depthsieve_cli.main import cli; cli.main(prog_name='depthsieve')"
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | asked, capture_output=True, text=True, cwd=cwd, check=False
    )
    assert done.stderr == ""
    return [line.partition(",")[2] for line in done.stdout.splitlines() if line]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_its_script(
    shell: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(monkeypatch, "completion", shell) == 0
    assert f"_DEPTHSIEVE_COMPLETE={shell}_complete" in capsys.readouterr().out


def test_commands_and_values_are_completed(tmp_path: Path) -> None:
    assert completed("cur") == ["curate"]
    assert completed("label", "a", "b", "--teacher", "tin") == ["tiny", "tiny-v1"]
    assert completed("label", "a", "b", "--signals", "flip,lo") == ["flip,lowres"]
    assert completed("scan", "--dataset", "sa") == ["sa-1b"]
    make_store(tmp_path, [Picture(f"{number}.png", (28, 40), (14, 20)) for number in (1, 20, 21)])
    offered = completed("curate", "labels", "--explain", "default/2", cwd=tmp_path)
    assert offered == ["default/20.png", "default/21.png"]
    assert completed("curate", "nowhere", "--explain", "default/2", cwd=tmp_path) == []
