"""The shape of the code: which module may import which, what an import loads, what the package exports.

Imports are read from the sources, those within functions too; only those under ``if TYPE_CHECKING:`` do not count.
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

MAY_IMPORT = {
    # What each module or folder of depthsieve may import of depthsieve. Only from lines further up.
    "errors": "",
    "records": "errors",
    "options": "errors records",
    "stopping": "errors",
    "processes": "errors",
    "lanes": "errors",
    "threads": "errors",
    "lifelines": "errors",
    # pure: none of these reaches a file, a store or a model
    "alignment": "errors",
    "masking": "errors",
    "losses": "errors alignment masking",
    "reliability": "errors records alignment",
    "evaluate": "errors records alignment reliability",
    "scenes": "errors records",
    "image_headers": "errors",
    "datasets": "errors records",
    "features": "records",
    # files, images and models
    "storage": "errors processes",
    "pillow_guard": "errors",
    "images": "errors records image_headers pillow_guard",
    "sources": "errors records image_headers images storage",
    "ground_truth": "errors image_headers pillow_guard sources storage",
    "store": "errors records processes features.columns storage",
    "sharding": "errors records store.schema",
    "teachers": "errors records threads",
    "loader": "errors records processes image_headers images sources store masking",
    # labelling: one shard, then one run
    "numerics": "errors records threads images teachers",
    "forward": "errors records features store.schema teachers reliability",
    "preparing": "errors records features images sources store teachers forward",
    "labelling": "errors processes records stopping threads lanes sources store teachers reliability numerics forward "
    "preparing",
    "isolation": "errors records stopping lifelines labelling",
    "drafting": "errors records store sharding",
    "scanning": "errors records sources store",
    "manifests": "errors records options sources store scanning",
    "manifest_scan": "errors processes records options datasets sources storage store scanning manifests",
    "changes": "errors records options scanning sources store",
    "planning": "errors processes records options reliability sources storage store teachers numerics drafting "
    "scanning",
    "fusing": "errors processes records options threads reliability storage store sharding planning",
    "runners": "errors records stopping lifelines store teachers labelling isolation",
    "dispatch": "errors records stopping processes storage store runners",
    "recalibration": "errors processes records reliability storage store",
    "refilling": "errors processes records features threads sources storage store teachers forward preparing labelling",
    "repair": "errors processes records storage store labelling fusing",
    "forecast": "errors records options lanes sources storage store teachers labelling drafting planning",
    "storing": "errors processes records images sources stopping store preparing",
    "run": "errors records options stopping sources storage store teachers labelling drafting scanning "
    "manifests changes planning forecast runners dispatch storing",
    # what looks at a finished store, and the demonstration of it all
    "evaluation": "errors records storage store evaluate ground_truth",
    "curation": "errors processes features masking storage store",
    "student": "errors losses loader",
    "demo_settings": "errors",
    "report": "errors records images sources store masking reliability evaluate loader demo_settings",
    "demo": "errors records options demo_settings threads images store masking losses reliability evaluate scenes "
    "loader run student report",
}

ONLY_IN = {
    # Third-party packages that few places may import.
    "ray": "depthsieve.runners.ray depthsieve.runners.ray_session depthsieve.runners.ray_worker",
    "transformers": "depthsieve.teachers",
    "huggingface_hub": "depthsieve.teachers",
    "click": "depthsieve_cli",
    "obstore": "depthsieve.storage",
    "duckdb": "depthsieve.store.spill depthsieve.curation.where",
    "faiss": "depthsieve.curation.neighbours",
    "matplotlib": "depthsieve.evaluation.figures",
    "depthsieve_cli": "depthsieve_cli",
}

HEAVY = (
    *("PIL", "cv2", "duckdb", "faiss", "h5py", "huggingface_hub", "matplotlib", "numpy", "pyarrow", "ray", "torch"),
    *("transformers", "zarr"),
)


def imports_in(source: str) -> Iterator[str]:
    """Dotted names that a source imports: ``a.b`` for ``import a.b``, ``a.b.c`` for ``from a.b import c``."""
    skipped: set[ast.AST] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            skipped.update(inner for child in node.body for inner in ast.walk(child))
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ("." * node.level + f"{node.module}.{alias.name}" for alias in node.names)


def within(name: str, place: str) -> bool:
    """Whether a dotted name is ``place`` or lies in it."""
    return f"{name}.".startswith(f"{place}.")


def may_import(group: str, name: str) -> bool:
    """Whether a module or folder of depthsieve may import ``name``; ``depthsieve/__init__.py`` ("") none at all."""
    allowed = (group, *MAY_IMPORT.get(group, "").split()) if group else ()
    return name == "depthsieve.__version__" or any(within(name, f"depthsieve.{place}") for place in allowed)


def faults(module: str, source: str) -> list[str]:
    """What is wrong with the imports of one module, one line each."""
    found = []
    group = module.partition(".")[2].partition(".")[0]
    for name in imports_in(source):
        if name.startswith("."):
            found.append(f"{module} imports {name}: write the whole name")
        elif within(name, "depthsieve") and within(module, "depthsieve") and not may_import(group, name):
            found.append(f"{module} imports {name}")
        for package, places in ONLY_IN.items():
            if within(name, package) and not any(within(module, place) for place in places.split()):
                found.append(f"{module} imports {name}, which only {places} may")
    return found


def home_of(name: str) -> str | None:
    """The module of ours that an imported name lies in."""
    while name and name not in SOURCES:
        name = name.rpartition(".")[0]
    return name or None


def test_every_module_stands_in_the_table_and_the_table_points_one_way() -> None:
    names = [name.partition(".")[2].partition(".")[0] for name in SOURCES if within(name, "depthsieve")]
    assert set(names) - {""} <= set(MAY_IMPORT), "enter the new module in MAY_IMPORT"
    order = list(MAY_IMPORT)
    for group, allowed in MAY_IMPORT.items():
        for other in allowed.split():
            assert order.index(other.partition(".")[0]) < order.index(group), f"{group} may not import {other}"


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
        ("depthsieve.alignment", "from depthsieve.store import schema", "depthsieve.store.schema"),
        ("depthsieve.loader.dataset", "def f():\n    import depthsieve.run", "depthsieve.run"),
        ("depthsieve.loader.dataset", "from depthsieve import runners", "depthsieve.runners"),
        ("depthsieve.sharding", "from depthsieve.store import open_store", "depthsieve.store.open_store"),
        ("depthsieve.run", "import depthsieve", "depthsieve"),
        ("depthsieve.run", "from .planning import cores", ".planning.cores"),
        ("depthsieve.run", "def f():\n    from ray import get", "ray.get"),
        ("depthsieve.runners.local", "import ray", "ray"),
        ("depthsieve.run", "from transformers import AutoModel", "transformers.AutoModel"),
        ("depthsieve.run", "import click", "click"),
        ("depthsieve.run", "from depthsieve_cli.output import count", "depthsieve_cli.output.count"),
        ("depthsieve", "from depthsieve.run import label", "depthsieve.run.label"),
        ("depthsieve.run", "if TYPE_CHECKING:\n    pass\nelse:\n    import ray", "ray"),
    ],
)
def test_a_forbidden_import_is_found(module: str, source: str, fault: str) -> None:
    (line,) = faults(module, source)
    assert line.startswith(f"{module} imports {fault}")


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("depthsieve.run", "if TYPE_CHECKING:\n    import ray\n    from depthsieve.demo import run_demo"),
        ("depthsieve.runners.ray", "import ray"),
        ("depthsieve.sharding", "from depthsieve.store.schema import shard_name"),
        ("depthsieve.report.page", "from depthsieve import __version__\nfrom depthsieve.report import sheet"),
        ("depthsieve_cli.label", "import click\nfrom depthsieve.run import label"),
        ("depthsieve.run", "import rays"),
    ],
)
def test_a_permitted_import_passes(module: str, source: str) -> None:
    assert faults(module, source) == []


def test_what_is_imported_is_declared() -> None:
    """A package that only happens to be installed is missing on a user's machine."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {re.split(r"[^\w-]", line)[0].lower() for line in project["dependencies"]}
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
    loaded = loaded_by("import depthsieve.run, depthsieve.runners.local, depthsieve.teachers.loading")
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
def test_files_stay_readable(module: str) -> None:
    text = SOURCES[module].read_text()
    assert len(text.splitlines()) <= 350, "split it"
    assert ast.get_docstring(ast.parse(text)), "say what the module is for"


def test_the_architecture_document_names_every_module_and_only_tests_that_exist() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    named = {name.split("/")[0] for name in re.findall(r"`([\w/]+)`", text)}
    assert set(MAY_IMPORT) - named == {"pillow_guard"}
    for pattern in re.findall(r"`(test_[\w*]+\.py)`", text):
        assert list((ROOT / "tests").glob(pattern)), pattern
