"""docs/tutorial.ipynb runs from its first cell to its last, on few scenes, and shows what it says."""

from pathlib import Path

import nbclient
import nbformat
import pytest

NOTEBOOK = Path(__file__).parents[2] / "docs" / "tutorial.ipynb"


@pytest.mark.slow
def test_the_tutorial_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUTORIAL_SCENES", "8")
    monkeypatch.setenv("TUTORIAL_STEPS", "3")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert all(not cell.outputs and cell.execution_count is None for cell in notebook.cells if cell.cell_type == "code")
    nbclient.NotebookClient(notebook, timeout=250, resources={"metadata": {"path": tmp_path}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    printed = "".join(output.text for output in outputs if output.output_type == "stream" and output.name == "stdout")
    for expected in (
        "10 files\n",
        "10 images, 0 rejected\n",
        "9 labelled\nfailed: default/broken.png truncated PNG",
        "min-sharpness 0.53: 1 dropped\n",
        "drop  10%: AbsRel 0.",
        "3 steps: loss from ",
        "AbsRel on 2 held-out scenes: teacher 0.",
    ):
        assert expected in printed, printed
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2
