"""The settings file: what it sets, what wins over it, and what is wrong with it in one line."""

from pathlib import Path

import pytest
from commandline import command
from storemaker import Picture, make_store


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the command runs: ``labels`` of three images."""
    make_store(tmp_path, [Picture(f"{number}.png", (28, 40), (14, 20)) for number in range(3)])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = command(monkeypatch, *words)
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("depthsieve.toml", '[curate]\nwhere = "row = 0"\ndry-run = true\n'),
        ("depthsieve.toml", 'where = "row = 0"\ndry-run = true\n'),
        ("pyproject.toml", '[tool.other]\nx = 1\n[tool.depthsieve.curate]\nwhere = "row = 0"\ndry-run = true\n'),
    ],
)
def test_a_file_sets_options_and_the_command_says_so(
    folder: Path, name: str, text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / name).write_text(text)
    code, out, err = run(monkeypatch, capsys, "curate", "labels")
    assert code == 0 and "1 of 3 images (33.3%) are kept. Nothing was written." in out
    assert err.splitlines()[0] == "Note: from the settings file: --dry-run, --where row = 0"
    code, out, err = run(monkeypatch, capsys, "curate", "labels", "--where", "row < 2", "--quiet")
    assert code == 0 and "2 of 3 images" in out
    assert err == ""  # quiet


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[curat]\nmax = 1\n", "depthsieve.toml: there is no command 'curat'; did you mean 'curate'?"),
        ("[curate]\nmaxx = 1\n", "depthsieve.toml: curate has no option 'maxx'; did you mean 'max'?"),
        ("teachr = 'tiny'\n", "depthsieve.toml: no command has an option 'teachr'; did you mean 'teacher'?"),
        ("[curate]\nmax = 'many'\n", "depthsieve.toml, curate: --max: 'many' is not a valid int"),
        ("[curate]\nmax = {}\n", "depthsieve.toml, curate: --max does not take {}"),
        ("[curate]\nfaulty = 3\n", "depthsieve.toml, curate: --faulty is true or false, not 3"),
        ("[curate\n", "depthsieve.toml: "),
    ],
)
def test_what_is_wrong_is_one_line(
    folder: Path, text: str, says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "depthsieve.toml").write_text(text)
    code, _, err = run(monkeypatch, capsys, "curate", "labels", "--dry-run")
    assert code == 2
    (line,) = [line for line in err.splitlines() if line.startswith("Error: ")]
    assert line.startswith(f"Error: {says}")


def test_without_one_nothing_is_said(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "pyproject.toml").write_text("this is no toml, and nobody asked\n")
    code, _, err = run(monkeypatch, capsys, "curate", "labels", "--dry-run")
    assert (code, err) == (0, "")
