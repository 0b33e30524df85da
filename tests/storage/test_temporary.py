"""Temporary folders go with their process, or with the next one."""

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from depthsieve.storage.temporary import temporary_folder

HOLD = """
from depthsieve.storage.temporary import temporary_folder
with temporary_folder("held") as folder:
    (folder / "listing").write_text("much")
    print(folder, flush=True)
    input()
"""


def test_a_folder_goes_at_the_end_and_one_whose_process_was_killed_with_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    (tmp_path / "depthsieve-notes.txt").write_text("somebody's")
    with subprocess.Popen(
        [sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        held = Path(process.stdout.readline().strip())
        with temporary_folder() as mine:
            assert held.parent == mine.parent == tmp_path
            assert (held / "listing").exists()  # its process lives
        process.kill()
    assert not mine.exists() and held.exists()
    with pytest.raises(ZeroDivisionError), temporary_folder() as mine:
        assert not held.exists()
        _ = 1 / 0
    assert [path.name for path in tmp_path.iterdir()] == ["depthsieve-notes.txt"]
