"""The wheel, installed alone: what is in it, what it declares, and that it works with nothing of the checkout."""

import os
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

from depthsieve.teachers.presets import FOLDERS

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DIST_INFO = f"depthsieve-{PROJECT['version']}.dist-info"
DATA = {".py", ".css", ".js", ".typed", ".json", ".safetensors", ".md", ".toml"}


def run(*command: str | Path, cwd: Path) -> str:
    """Standard output of a command that must succeed."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    result = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def contents(wheel: Path) -> dict[str, int]:
    """The checksum of each file in a wheel, by name."""
    with zipfile.ZipFile(wheel) as archive:
        return {entry.filename: entry.CRC for entry in archive.infolist()}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sdist")
    run(sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    (built,) = folder.glob("*.tar.gz")
    return built


@pytest.fixture(scope="module")
def bare(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment with the wheel, and this one's other packages to save a download of gigabytes.

    They come in through a ``.pth`` line, which adds the folder only: the editable depthsieve there is not followed.
    """
    folder = tmp_path_factory.mktemp("bare") / "environment"
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder.parent)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check"]
    run(*pip, "install", "--no-deps", "--no-index", wheel, cwd=folder)
    packages = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip()
    Path(packages, "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder


def test_it_holds_the_packages_and_nothing_else(wheel: Path) -> None:
    expected = {
        path.relative_to(ROOT / root).as_posix()
        for root in ("pipeline", "cli")
        for path in (ROOT / root).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    expected |= {f"depthsieve/data_manifests/{path.name}" for path in (ROOT / "data_manifests").iterdir()}
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.startswith(DIST_INFO)}
    assert names == expected
    assert {"depthsieve/py.typed", "depthsieve_cli/py.typed"} <= names
    assert {name.partition("/")[0] for name in names} == {"depthsieve", "depthsieve_cli"}
    assert {Path(name).suffix for name in names} <= DATA


def test_it_holds_the_embedded_teachers(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        sizes = {Path(entry.filename): entry.file_size for entry in archive.infolist()}
    for folder in (Path("depthsieve/teachers") / name for name in FOLDERS.values()):
        (weights,) = (path for path in sizes if path.parent == folder and path.suffix == ".safetensors")
        assert sizes[weights] == (ROOT / "pipeline" / weights).stat().st_size > 100_000
        assert folder / "config.json" in sizes


def test_it_declares_what_the_project_declares(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        metadata = message_from_bytes(archive.read(f"{DIST_INFO}/METADATA"))
        entry_points = archive.read(f"{DIST_INFO}/entry_points.txt").decode()
        for name in ("LICENSE", "NOTICE"):
            assert archive.read(f"{DIST_INFO}/licenses/{name}") == (ROOT / name).read_bytes()
    required = {line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line}
    assert required == set(PROJECT["dependencies"])
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata.get_all("License-File") == ["LICENSE", "NOTICE"]
    assert sorted(metadata.get_all("Classifier", [])) == sorted(PROJECT["classifiers"])
    assert set(metadata.get_all("Provides-Extra", [])) == set(PROJECT["optional-dependencies"])
    assert entry_points.split() == ["[console_scripts]", "depthsieve", "=", "depthsieve_cli.main:entry"]


def test_the_source_archive_builds_the_same_wheel(wheel: Path, sdist: Path, tmp_path: Path) -> None:
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (tree,) = tmp_path.iterdir()
    for name in ("LICENSE", "NOTICE", "Makefile", "constraints-dev.txt", "docs/CHANGELOG.md", "tests/test_wheel.py"):
        assert (tree / name).read_bytes() == (ROOT / name).read_bytes()
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path / "dist", tree, cwd=tmp_path)
    assert contents(tmp_path / "dist" / wheel.name) == contents(wheel)


def test_nothing_comes_from_the_checkout(bare: Path) -> None:
    code = "import depthsieve, depthsieve_cli.main, sys; print(depthsieve.__file__, depthsieve_cli.__file__, *sys.path)"
    package, command, *path = run(bare / "bin" / "python", "-c", code, cwd=bare).split()
    assert Path(package).is_relative_to(bare)
    assert Path(command).is_relative_to(bare)
    assert not any(Path(entry).is_relative_to(ROOT / source) for entry in path for source in ("pipeline", "cli"))


def test_recipes_of_datasets_come_along(bare: Path) -> None:
    code = "from depthsieve.sources.recipes import *; print(recipes_folder(), load_recipe('sa-1b').images.expected)"
    folder, expected = run(bare / "bin" / "python", "-c", code, cwd=bare).split()
    assert Path(folder).is_relative_to(bare) and expected == "11185362"


def test_help(bare: Path) -> None:
    text = run(bare / "bin" / "depthsieve", "--help", cwd=bare)
    assert text.startswith("Usage: depthsieve [OPTIONS] COMMAND")
    assert text.rstrip().endswith("Example: depthsieve label photos/ labels/ --teacher tiny")
    assert run(bare / "bin" / "depthsieve", "--version", cwd=bare).split()[-1] == PROJECT["version"]


def test_demo(bare: Path, tmp_path: Path) -> None:
    """In miniature: with the embedded teacher out of the wheel, from scenes to page."""
    text = run(bare / "bin" / "depthsieve", "demo", "--out", "my demo", "--scenes", "2", "--steps", "1", cwd=tmp_path)
    assert text.splitlines()[-1] == "Open my demo/index.html"
    assert (tmp_path / "my demo" / "index.html").read_text().lower().startswith("<!doctype html>")
    assert len(list((tmp_path / "my demo" / "scenes").rglob("*.png"))) == 2
