"""The package that docs/teachers.md prints, installed into an environment of its own: found, tried, labelled with."""

import json
import re
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest
from labelled import write_photos

from depthsieve.store import open_store

PAGE = (Path(__file__).parents[2] / "docs" / "teachers.md").read_text()
OWN = PAGE[PAGE.index("## Teachers of your own") :]

BROKEN = """

class Broken(MyDepth):
    def predict(self, batch):
        return Prediction(super().predict(batch).depth[:, None])
"""

SCRIPT = """
import json, sys
import depthsieve
from depthsieve.scenes import render_scene
from depthsieve.teachers import plug_ins
from depthsieve.testing import check_teacher

pictures = [render_scene(seed, *shape).rgb_HW3 for seed, shape in ((1, (48, 64)), (2, (64, 48)))]
options = dict(size=64, signals="native", keep_signals=True, batch_size=2, threads=1, progress=False)
summary = depthsieve.label(*sys.argv[1:], teacher="my-depth", **options)
found = {
    "offered": [[one.name, one.package] for one in plug_ins()],
    "broken": [str(one) for one in check_teacher("my-depth", pictures=pictures, size=64)],
    "broken other": [str(one) for one in check_teacher("my-broken", pictures=pictures, size=64)],
    "labelled": [summary.labelled, len(summary.failed)],
}
print(json.dumps(found))
"""


def fenced(language: str) -> str:
    """The first block of a language in the section."""
    found = re.search(rf"^```{language}\n(.*?)^```", OWN, re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1]


def run(*command: str | Path, cwd: Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == code, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the package, and all that this one has."""
    package = tmp_path_factory.mktemp("my depth")
    (package / "my_depth.py").write_text(fenced("python") + BROKEN)
    (package / "pyproject.toml").write_text(fenced("toml") + 'my-broken = "my_depth:Broken"\n')
    environment = tmp_path_factory.mktemp("bare") / "environment"
    run(sys.executable, "-m", "venv", "--without-pip", environment, cwd=package)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(environment)}))
    (site / "others.pth").write_text("\n".join(place for place in sys.path if Path(place).is_dir()))
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-index")
    run(*pip, "--no-deps", "--no-build-isolation", "--target", site, package, cwd=package)
    return environment / "bin" / "python"


@pytest.fixture(scope="module")
def found(python: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("labels")
    photos = write_photos(folder / "photos", 2)
    done = run(python, "-c", SCRIPT, photos, folder / "store", cwd=folder)
    return folder, json.loads(done.stdout)


def test_it_is_found_by_its_entry_point_and_keeps_the_rules(found: tuple[Path, dict[str, Any]]) -> None:
    _, said = found
    assert said["offered"] == [["my-broken", "my-depth 1.0"], ["my-depth", "my-depth 1.0"]]
    assert said["broken"] == []
    assert said["broken other"] == [
        "prediction: its depth is torch.float32 [1, 1, 64, 80], not torch.float32 [1, 64, 80]; "
        "see depthsieve.teachers.Teacher for what is wanted"
    ]


def test_it_labels_with_its_confidence(found: tuple[Path, dict[str, Any]]) -> None:
    folder, said = found
    assert said["labelled"] == [2, 0]
    store = open_store(folder / "store")
    assert (store.spec.signals, store.spec.quantity) == (("native",), "depth")
    assert store.spec.preprocessing["multiple"] == 16
    label = store.label("default/photo 0.png")
    sure = [float(label.reliability[rows].astype(float).mean()) for rows in (slice(20, 30), slice(-10, None))]
    assert sure[0] < sure[1], "it says that it knows what is near better"


def test_one_that_breaks_a_rule_is_refused_in_a_line(python: Path, found: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = found
    label = (
        "-m",
        "depthsieve",
        "label",
        "photos",
        "other",
        "--teacher",
        "my-broken",
        "--size",
        "64",
        "--signals",
        "none",
    )
    done = run(python, *label, cwd=folder, code=1)
    assert "teacher 'my-depth' failed: TypeError: its depth is torch.float32 [1, 1, 64, 80], not torch." in done.stderr
    assert "Traceback" not in done.stderr
