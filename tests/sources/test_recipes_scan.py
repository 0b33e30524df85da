"""A miniature of every dataset's download goes through scan and label, under its recipe."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from labelled import small_teacher, write_photo
from miniatures import MINIATURES, build

import depthsieve
from depthsieve.core.errors import SourceError, UsageError
from depthsieve.sources.manifest import KEY, open_manifest
from depthsieve.sources.recipes import load_recipe, recipe_names, recipes_folder
from depthsieve_cli.main import cli

TEMPLATE = recipes_folder() / "template.toml"
SETTINGS: dict[str, Any] = {"batch_size": 4, "threads": 1, "signals": "none", "progress": False}


def expected_ids(name: str) -> list[str]:
    return sorted(f"{name}/{path.replace('::./', '::')}" for path in MINIATURES[name].counted)


def command(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["scan", *map(str, arguments)], standalone_mode=False)


@pytest.mark.parametrize("name", MINIATURES)
def test_of_a_miniature_the_right_images_are_found(name: str, tmp_path: Path) -> None:
    miniature = build(tmp_path / "root", name)
    summary = depthsieve.scan(tmp_path / "root", tmp_path / "m.parquet", dataset=name, progress=False)
    assert pq.read_table(tmp_path / "m.parquet")["id"].to_pylist() == expected_ids(name)
    locks = 4 if name == "lsun" else 0
    assert (summary.images, summary.rejected) == (len(miniature.counted), 0)
    assert (summary.skipped_hidden, summary.skipped_other) == (0, len(miniature.others) + locks)
    dataset = load_recipe(name)
    assert (summary.dataset, summary.expected) == (dataset.note, dataset.images.expected)
    assert summary.complete is False and summary.verdict.startswith(f"{name}: found {summary.images} images, expected ")
    assert open_manifest(tmp_path / "m.parquet").datasets == {name: dataset.note}


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the miniatures of all datasets, each under its own name; and their manifests."""
    folder = tmp_path_factory.mktemp("all")
    teacher = str(small_teacher(folder / "teacher"))
    for name in MINIATURES:
        build(folder / name, name)
        depthsieve.scan(folder / name, folder / f"{name}.parquet", dataset=name, progress=False)
    join([folder / f"{name}.parquet" for name in MINIATURES], folder / "all.parquet")
    depthsieve.label(folder / "all.parquet", folder / "store", teacher=teacher, **SETTINGS)
    return folder


def join(manifests: list[Path], out: Path) -> None:
    """One manifest of several, so that they are labelled in one run."""
    tables = [pq.read_table(path) for path in manifests]
    bodies = [json.loads(table.schema.metadata[KEY]) for table in tables]
    body = {key: {name: value for one in bodies for name, value in one[key].items()} for key in ("sources", "datasets")}
    joined = pa.concat_tables([table.replace_schema_metadata(None) for table in tables])
    body["format"] = bodies[0]["format"]
    pq.write_table(joined.replace_schema_metadata({KEY: json.dumps(body)}), out)


def test_all_miniatures_are_labelled_and_their_terms_are_kept(labelled: Path) -> None:
    store = depthsieve.open_store(labelled / "store")
    assert sorted(store.datasets()) == recipe_names()
    assert store.datasets() == {name: load_recipe(name).note for name in store.datasets()}
    index = store.index()
    assert set(index["status"].to_pylist()) == {"labelled"}
    assert sorted(index["id"].to_pylist()) == sorted(image for name in MINIATURES for image in expected_ids(name))
    assert depthsieve.verify(labelled / "store").sound
    assert len(depthsieve.PseudoLabelDataset(labelled / "store")) == len(index)
    lines = CliRunner().invoke(cli, ["status", str(labelled / "store")]).stdout.splitlines()
    assert len([line for line in lines if line.startswith("Dataset ")]) == 13


def test_terms_that_are_learnt_later_are_added_and_those_known_are_not_written_again(
    labelled: Path, tmp_path: Path
) -> None:
    photos, store = write_photo(tmp_path / "in" / "a.jpg", 120, 90, seed=1).parent, tmp_path / "store"
    options = SETTINGS | {"teacher": str(labelled / "teacher")}
    depthsieve.scan({"my-photos": photos}, tmp_path / "plain.parquet", progress=False)
    depthsieve.label(tmp_path / "plain.parquet", store, **options)
    assert depthsieve.open_store(store).datasets() == {}
    recipe = tmp_path / "mine.toml"
    recipe.write_text(TEMPLATE.read_text())
    depthsieve.scan(photos, tmp_path / "m.parquet", dataset=str(recipe), progress=False)
    for _ in range(2):
        summary = depthsieve.label(tmp_path / "m.parquet", store, **options)
        assert (summary.labelled_now, summary.labelled) == (0, 1)
        opened = depthsieve.open_store(store)
        assert opened.datasets() == {"my-photos": load_recipe(recipe).note}
        assert len(opened.generations()) == 2


def test_the_command_tells_the_count_and_the_terms(tmp_path: Path) -> None:
    build(tmp_path / "root", "hypersim")
    result = command("--dataset", "hypersim", "--root", tmp_path / "root", "-o", tmp_path / "m.parquet")
    assert result.return_value == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == f"{tmp_path / 'm.parquet'}: 2 images."
    assert "Passed over 0 hidden files, and 5 files of other kinds." in lines
    assert (
        "Terms: CC BY-SA 3.0 (commercial use: yes; labels may be passed on: yes; name the source: yes), "
        "https://creativecommons.org/licenses/by-sa/3.0/."
    ) in lines
    assert lines[-1] == load_recipe("hypersim").note.consequences
    assert result.stderr.splitlines()[-1] == (
        "Note: hypersim: found 2 images, expected 74,619: a part of it, or a download that is not complete."
    )
    body = json.loads(
        command("--dataset", "hypersim", "--root", tmp_path / "root", "-o", tmp_path / "m.parquet", "--json").stdout
    )
    assert (body["complete"], body["expected"], body["dataset"]["name"]) == (False, 74_619, "hypersim")


def test_a_whole_dataset_is_said_to_be_whole(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.toml"
    recipe.write_text(TEMPLATE.read_text().replace("expected = 1_200", "expected = 2"))
    for name in ("a.jpg", "b/c.png", "thumbnails/d.jpg"):
        write_photo(tmp_path / "photos" / name, 40, 30, seed=1)
    result = command("--dataset", recipe, "--root", tmp_path / "photos", "-o", tmp_path / "m.parquet")
    assert "my-photos: found 2 images, exactly as expected." in result.stdout.splitlines()
    assert "Note:" not in result.stderr
    assert pq.read_table(tmp_path / "m.parquet")["id"].to_pylist() == ["my-photos/a.jpg", "my-photos/b/c.png"]


def test_what_cannot_be_read_is_told_of_if_it_counts(tmp_path: Path) -> None:
    build(tmp_path, "objects365")
    (tmp_path / "train" / "patch7.tar.gz").write_bytes(b"\x1f\x8b")
    (tmp_path / "train" / "patch8.tar").write_bytes(b"x" * 600)
    (tmp_path / "val" / "patch9.tar").write_bytes(b"x" * 600)
    (tmp_path / "train" / "note.exr").write_bytes(b"x")
    result = command("--dataset", "objects365", "--root", tmp_path, "-o", tmp_path / "m.parquet")
    assert result.return_value == 3
    failed = [line.split(": ")[1] for line in result.stdout.splitlines() if line.startswith("  failed: ")]
    assert failed == ["objects365/train/patch7.tar.gz", "objects365/train/patch8.tar"]


def test_a_folder_of_something_else_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    write_photo(tmp_path / "root" / "a.jpg", 40, 30, seed=1)
    with pytest.raises(SourceError, match=r"nothing in .*root is an image of dataset sa-1b \(1 other files\)"):
        depthsieve.scan(tmp_path / "root", tmp_path / "m.parquet", dataset="sa-1b", progress=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["root"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "name at least one source"),
        (["--dataset", "irs"], "say where the --dataset lies, once: --root DIR"),
        (["a", "--dataset", "irs", "--root", "b"], "say where the --dataset lies, once"),
        (["a", "b", "--dataset", "irs"], "say where the --dataset lies, once"),
        (["a", "--dataset", "isr"], "did you mean irs"),
    ],
)
def test_wrong_usage_is_one_line(arguments: list[str], words: str, tmp_path: Path) -> None:
    error = command(*arguments, "-o", tmp_path / "m.parquet").exception
    assert isinstance(error, UsageError) and words in str(error)


def test_a_dataset_names_its_one_source_itself(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="scan irs alone"):
        depthsieve.scan([tmp_path, tmp_path], tmp_path / "m.parquet", dataset="irs", progress=False)
    with pytest.raises(UsageError, match="scan irs alone"):
        depthsieve.scan({"x": tmp_path}, tmp_path / "m.parquet", dataset="irs", progress=False)
