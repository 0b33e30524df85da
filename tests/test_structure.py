"""The shape of the code: which package may import which, what an import loads, what the package exports.

Imports are read from the sources, those within functions too. Under ``if TYPE_CHECKING:`` our own count as well, since
they tie files together for the reader; those of other packages do not, since nothing is loaded.
"""

import ast
import importlib
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import click
import pytest

import depthsieve
from depthsieve_cli.main import cli

ROOT = Path(__file__).parents[1]
SOURCES = {
    ".".join(path.relative_to(ROOT / root).with_suffix("").parts).removesuffix(".__init__"): path
    for root in ("pipeline", "cli")
    for path in sorted((ROOT / root).rglob("*.py"))
}

FLOORS = (
    # The packages of depthsieve from the ground up: each imports only from floors below its own.
    "core scenes",
    "features images reliability storage teachers",
    "sources",
    "cameras store",
    "curation evaluation labelling training",
    "export planning report runners testing",
    "jobs",
    "demo",
)

ONLY_IN = {
    # Third-party packages that few places may import.
    "av": "depthsieve.sources.containers.video depthsieve.sources.containers.video_index depthsieve.labelling.numerics "
    "depthsieve.export.to_mp4",
    "ray": "depthsieve.runners.ray depthsieve.runners.ray_session depthsieve.runners.ray_worker",
    "transformers": "depthsieve.teachers",
    "huggingface_hub": "depthsieve.teachers",
    "click": "depthsieve_cli",
    "obstore": "depthsieve.storage",
    "duckdb": "depthsieve.core.spill depthsieve.curation.where",
    "faiss": "depthsieve.curation.neighbours",
    "tqdm": "depthsieve.core.progress",
    "matplotlib": "depthsieve.evaluation.figures",
    "depthsieve_cli": "depthsieve_cli depthsieve.__main__",
}

NOT_YET = ("jobs/layers/KIND.py", "export/to_NAME.py")
"""What docs/architecture.md names and is not built."""

HEAVY = (
    *(
        "PIL",
        "av",
        "cv2",
        "duckdb",
        "faiss",
        "h5py",
        "huggingface_hub",
        "matplotlib",
        "numpy",
        "pyarrow",
        "ray",
        "torch",
    ),
    *("transformers", "zarr"),
)


def imports_in(source: str, typed: bool = True) -> Iterator[str]:
    """Dotted names that a source imports: ``a.b`` for ``import a.b``, ``a.b.c`` for ``from a.b import c``.

    Without ``typed`` those that only type checkers see are left out.
    """
    skipped: set[ast.AST] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            skipped.update(inner for child in node.body for inner in ast.walk(child) if not typed)
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ("." * node.level + f"{node.module}.{alias.name}" for alias in node.names)


def within(name: str, place: str) -> bool:
    """Whether a dotted name is ``place`` or lies in it."""
    return f"{name}.".startswith(f"{place}.")


def floor_of(name: str) -> int:
    """The floor of a module or name of ours, by its package; what lies outside of all packages is at the top."""
    package = name.removeprefix("depthsieve.").partition(".")[0]
    return next((floor for floor, packages in enumerate(FLOORS) if package in packages.split()), len(FLOORS))


def faults(module: str, source: str) -> list[str]:
    """What is wrong with the imports of one module, one line each."""
    found = []
    package = module.removeprefix("depthsieve.").partition(".")[0]
    for name in imports_in(source):
        if name.startswith("."):
            found.append(f"{module} imports {name}: write the whole name")
        elif (
            within(name, "depthsieve")
            and within(module, "depthsieve")
            and not within(name, f"depthsieve.{package}")
            and floor_of(name) >= floor_of(module)
            and module not in ("depthsieve", "depthsieve.__main__")
        ):
            found.append(f"{module} imports {name}, which is not below it")
    for name in imports_in(source, typed=False):
        for package, places in ONLY_IN.items():
            if within(name, package) and not any(within(module, place) for place in places.split()):
                found.append(f"{module} imports {name}, which only {places} may")
    return found


def test_every_package_has_a_floor() -> None:
    packages = {path.parent.name for path in (ROOT / "pipeline" / "depthsieve").glob("*/__init__.py")}
    assert packages == set(" ".join(FLOORS).split())


def home_of(name: str) -> str | None:
    """The module of ours that an imported name lies in."""
    while name and name not in SOURCES:
        name = name.rpartition(".")[0]
    return name or None


@pytest.mark.parametrize("module", SOURCES)
def test_imports_point_down(module: str) -> None:
    assert faults(module, SOURCES[module].read_text()) == []


def test_there_are_no_circles_between_files() -> None:
    graph = {module: {home_of(name) for name in imports_in(path.read_text())} for module, path in SOURCES.items()}
    links = {module: {other for other in others if other and other != module} for module, others in graph.items()}
    try:
        TopologicalSorter(links).prepare()
    except CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


@pytest.mark.parametrize(
    ("module", "source", "fault"),
    [
        ("depthsieve.jobs.label", "from .planning import cores", ".planning.cores"),
        ("depthsieve.jobs.label", "def f():\n    from ray import get", "ray.get"),
        ("depthsieve.runners.local", "import ray", "ray"),
        ("depthsieve.jobs.label", "from transformers import AutoModel", "transformers.AutoModel"),
        ("depthsieve.jobs.label", "import click", "click"),
        ("depthsieve.jobs.label", "from depthsieve_cli.output import count", "depthsieve_cli.output.count"),
        ("depthsieve.jobs.label", "if TYPE_CHECKING:\n    pass\nelse:\n    import ray", "ray"),
    ],
)
def test_a_forbidden_import_is_found(module: str, source: str, fault: str) -> None:
    (line,) = faults(module, source)
    assert line.startswith(f"{module} imports {fault}")


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("depthsieve.jobs.label", "if TYPE_CHECKING:\n    import ray"),
        ("depthsieve.runners.ray", "import ray"),
        ("depthsieve.planning.sharding", "from depthsieve.store.schema import shard_name"),
        ("depthsieve.planning.sharding", "from depthsieve.planning import draft"),
        ("depthsieve_cli.label", "import click\nfrom depthsieve.jobs.label import label"),
        ("depthsieve.jobs.label", "import rays"),
    ],
)
def test_a_permitted_import_passes(module: str, source: str) -> None:
    assert faults(module, source) == []


def test_what_is_imported_is_declared() -> None:
    """A package that only happens to be installed is missing on a user's machine."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]  # of these, a line names the extra where the package is not installed
    lines = [*project["dependencies"], *extras["ray"], *extras["video"]]
    declared = {re.split(r"[^\w-]", line)[0].lower() for line in lines}
    packages = {
        "PIL": "pillow",
        "faiss": "faiss-cpu",
        "google_crc32c": "google-crc32c",
        "cv2": "opencv-python-headless",
        "huggingface_hub": "transformers",
    }
    used = {name.partition(".")[0] for path in SOURCES.values() for name in imports_in(path.read_text())}
    used -= {"depthsieve", "depthsieve_cli", *sys.stdlib_module_names}
    assert {packages.get(name, name) for name in used} <= declared


def loaded_by(code: str) -> set[str]:
    """Which heavy packages a fresh Python has loaded after ``code``."""
    code += f"\nimport json, sys\nprint(json.dumps([name for name in {HEAVY} if name in sys.modules]))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(result.stdout.splitlines()[-1]))


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert loaded_by("import depthsieve\ndir(depthsieve)") == set()


def test_help_loads_nothing_heavy() -> None:
    """This, and not a clock, holds that ``depthsieve --help`` answers at once."""
    assert isinstance(cli, click.Group)
    calls = [["--help"], ["--version"], *([name, "--help"] for name in cli.commands)]
    code = f"""
import contextlib
from depthsieve_cli.main import cli
for call in {calls}:
    with contextlib.suppress(SystemExit):
        cli.main(call, prog_name="depthsieve")
"""
    assert loaded_by(code) == set()


def test_labelling_locally_loads_no_ray() -> None:
    loaded = loaded_by("import depthsieve.jobs.label, depthsieve.runners.local, depthsieve.teachers.loading")
    assert loaded >= {"torch", "transformers", "zarr"}
    assert "ray" not in loaded


def test_the_public_names_are_those_exported() -> None:
    homes = depthsieve._HOMES
    assert sorted(name for names in homes.values() for name in names) == depthsieve.__all__ == dir(depthsieve)
    assert depthsieve.__all__ == sorted(depthsieve.__all__)
    init = ast.parse(SOURCES["depthsieve"].read_text())
    (typed,) = (node for node in init.body if isinstance(node, ast.If))  # what type checkers see
    seen = {
        (node.module, alias.name) for node in typed.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert seen == {(f"depthsieve.{home}", name) for home, names in homes.items() for name in names}


@pytest.mark.parametrize("name", depthsieve.__all__)
def test_every_public_name_resolves_and_is_documented(name: str) -> None:
    (home,) = (home for home, names in depthsieve._HOMES.items() if name in names)
    value = getattr(depthsieve, name)
    assert value is getattr(importlib.import_module(f"depthsieve.{home}"), name)
    assert value.__doc__
    assert value.__name__ == name


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'lable'"):
        depthsieve.lable  # noqa: B018


def test_the_version_is_the_projects() -> None:
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == depthsieve.__version__


@pytest.mark.parametrize("module", SOURCES)
def test_every_module_says_what_it_is_for(module: str) -> None:
    assert ast.get_docstring(ast.parse(SOURCES[module].read_text()))


def test_documents_name_only_files_that_exist() -> None:
    """Of packages, modules and tests, in the pages on how it is built."""
    for page in ("architecture.md", "decisions.md"):
        text = (ROOT / "docs" / page).read_text()
        for place in re.findall(r"`((?:tests/)?[\w*/]+\.py)`", text):
            inside = (ROOT, ROOT / "pipeline" / "depthsieve", ROOT / "cli" / "depthsieve_cli")
            assert place in NOT_YET or any(list(folder.glob(place)) for folder in inside), f"{page}: {place}"
        folders = {path.name for path in (ROOT, *(ROOT / "pipeline").rglob("*"), *ROOT.iterdir()) if path.is_dir()}
        assert set(re.findall(r"`([a-z]+)/`", text)) - folders == set(), page
