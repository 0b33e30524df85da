"""Recipes of datasets: what ships is whole and sourced, slips are named, patterns fit what they should."""

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from miniatures import MINIATURES
from storemaker import learn, make_store, pictures

from depthsieve.core.errors import UsageError
from depthsieve.core.patterns import fits
from depthsieve.core.records import DatasetNote
from depthsieve.sources.recipes import (
    Images,
    Recipe,
    load_recipe,
    read_recipe,
    recipe_names,
    recipes_folder,
)
from depthsieve.store.status import status
from depthsieve_cli.main import cli

PAPER = {
    "bdd100k": "8.2M",
    "google-landmarks": "4.1M",
    "imagenet-21k": "13.1M",
    "lsun": "9.8M",
    "objects365": "1.7M",
    "open-images-v7": "7.8M",
    "places365": "6.5M",
    "sa-1b": "11.1M",
    "blendedmvs": "115K",
    "hypersim": "60K",
    "irs": "103K",
    "tartanair": "306K",
    "vkitti2": "20K",
}
"""What Depth Anything V2 was trained on, images as its paper gives them."""
SYNTHETIC = {"blendedmvs", "hypersim", "irs", "tartanair", "vkitti2"}
TEMPLATE = recipes_folder() / "template.toml"
RECIPES = [*PAPER, str(TEMPLATE)]


def changed(tmp_path: Path, old: str, new: str) -> Path:
    """The template with one thing in it replaced."""
    text = TEMPLATE.read_text()
    assert old in text
    path = tmp_path / "mine.toml"
    path.write_text(text.replace(old, new, 1))
    return path


def test_the_paper_s_thirteen_sets_ship_and_nothing_else() -> None:
    assert recipe_names() == sorted(PAPER)
    assert {name: load_recipe(name).images.paper for name in PAPER} == PAPER
    assert {name for name in PAPER if load_recipe(name).kind == "synthetic"} == SYNTHETIC


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_says_all_that_is_needed(name: str) -> None:
    dataset = load_recipe(name)
    assert dataset.name in (name, "my-photos")
    assert dataset.licence.url.startswith("https://") or name == "places365"
    assert re.match(r"https?://", dataset.home)
    assert dataset.images.expected and dataset.images.expected_from
    assert f"scan --dataset {'my-photos.toml' if name == str(TEMPLATE) else name} --root" in dataset.scan[0]
    if name in PAPER:
        assert dataset.traps and dataset.not_confirmed and "{" in dataset.citation
        assert dataset.sources and all(re.match(r"https?://\S+ \(.+\)$", source) for source in dataset.sources)


@pytest.mark.parametrize("name", PAPER)
def test_the_count_is_that_of_the_paper_or_the_recipe_says_why_not(name: str) -> None:
    dataset = load_recipe(name)
    number, last_digit = {"M": (1e6, 0.1e6), "K": (1e3, 1e3)}[dataset.images.paper[-1]]
    off = abs((dataset.images.expected or 0) - number * float(dataset.images.paper[:-1]))
    assert off < last_digit or any("paper" in line for line in dataset.not_confirmed)


@pytest.mark.parametrize("name", PAPER)
def test_where_an_answer_is_open_the_recipe_says_so(name: str) -> None:
    dataset = load_recipe(name)
    if "not confirmed" in (dataset.licence.commercial_use, dataset.licence.share_labels):
        assert any(
            re.search(r"licen[cs]e|terms|passed on|derivative|exact count", line) for line in dataset.not_confirmed
        )


@pytest.mark.parametrize(
    ("path", "pattern", "expected"),
    [
        ("a.jpg", "**/*.jpg", True),
        ("x/y/a.jpg", "**/*.jpg", True),
        ("x.tar::y/a.jpg", "**/*.jpg", True),
        ("a.jpg.txt", "**/*.jpg", False),
        ("x/a.jpg", "*.jpg", False),
        ("a/b/c", "a/**", True),
        ("a", "a/**", False),
        ("a/x/y/b", "a/**/b", True),
        ("a/b", "a/**/b", True),
        ("ab", "a/**/b", False),
        ("sub.tar::x/n01.JPEG", "**/sub.tar/**", True),
        ("n7_1.JPEG", "n[0-9]*_*.JPEG", True),
        ("nx_1.JPEG", "n[0-9]*_*.JPEG", False),
        ("b.png", "[!ab].png", False),
        ("c.png", "[!ab].png", True),
        ("/.png", "[!ab].png", False),
        ("a+b(1).png", "a+b(?).png", True),
        ("aab.png", "a+b?.png", False),
        ("x[.png", "x[.png", True),
        ("a\nb.png", "a?b.png", True),
        ("A.JPG", "*.jpg", False),
    ],
)
def test_patterns(path: str, pattern: str, expected: bool) -> None:
    assert fits(path, (pattern,)) is expected
    assert fits(path, ("nothing", pattern)) is expected
    assert not fits(path, ())


@pytest.mark.parametrize("name", MINIATURES)
def test_of_a_download_the_right_files_count(name: str) -> None:
    dataset, miniature = load_recipe(name), MINIATURES[name]
    assert [path for path in miniature.counted if not dataset.counts(path)] == []
    assert [path for path in miniature.others if dataset.counts(path)] == []
    unpacked = [path.replace("::", "/") for path in miniature.counted]
    assert [path for path in unpacked if not dataset.counts(path)] == []
    below = [path.replace("::", "/").partition("/")[2] for path in miniature.counted if "/" in path.partition("::")[0]]
    assert name == "lsun" or [path for path in below if not dataset.counts(path)] == []  # only folders have names there


def test_every_dataset_has_a_miniature() -> None:
    assert sorted(MINIATURES) == recipe_names()


def test_an_image_counts_if_it_is_included_and_not_excluded_and_containers_are_told_of() -> None:
    dataset = load_recipe("blendedmvs")
    assert dataset.counts("x/blended_images/00000001.jpg")
    assert not dataset.counts("x/blended_images/00000001_masked.jpg")
    assert not dataset.counts("x/cams/00000001.jpg")
    assert dataset.counts("BlendedMVS.ZIP") and not dataset.counts("x/depth.exr")
    assert load_recipe("objects365").counts("train/patch0.tar.gz")
    assert not load_recipe("objects365").counts("val/patch0.tar.gz")


def test_the_count_is_judged() -> None:
    dataset = load_recipe("sa-1b")
    assert dataset.judge(11_185_362) == (True, "sa-1b: found 11,185,362 images, exactly as expected.")
    fine, line = dataset.judge(11_080_000)
    assert fine and "found 11,080,000 images, of 11,185,362 expected" in line
    fine, line = dataset.judge(11_000_000)
    assert not fine and "found 11,000,000 images, expected about 11.2 million" in line and "not complete" in line
    fine, line = dataset.judge(22_000_000)
    assert not fine and "another edition" in line
    assert load_recipe("irs").judge(5)[1].startswith("irs: found 5 images, expected 103,316: a part of it")


def test_without_an_expectation_any_count_will_do(tmp_path: Path) -> None:
    path = changed(tmp_path, "expected = 1_200", "# expected = 1_200")
    assert read_recipe(path).images.expected is None
    assert read_recipe(path).judge(7) == (
        True,
        "my-photos: found 7 images; how many there should be is not known.",
    )


def test_what_travels_with_the_labels() -> None:
    note = load_recipe("hypersim").note
    assert (note.name, note.licence, note.commercial_use, note.share_labels) == (
        "hypersim",
        "CC BY-SA 3.0",
        "yes",
        "yes",
    )
    assert note.licence_url == "https://creativecommons.org/licenses/by-sa/3.0/"
    assert note.citation.startswith("@misc{roberts:2020") and "\n" not in note.consequences
    assert DatasetNote.from_json({"name": "x", "later": 1}) == DatasetNote("x", *[""] * 9)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("depthsieve_dataset = 1", "depthsieve_dataset = 2", "depthsieve_dataset must be 1"),
        ('title = "', 'titel = "', "no key titel; did you mean title"),
        ("expected = 1_200", 'expected = "1200"', "images.expected must be a whole number, not '1200'"),
        ("expected = 1_200", "expected = true", "images.expected must be a whole number, not True"),
        ("expected = 1_200", "expected = 0", "images.expected must be at least 1"),
        ("tolerance = 0.0", "tolerance = 1.5", "images.tolerance must be a share"),
        ("tolerance = 0.0", 'tolerance = "1%"', "images.tolerance must be a number"),
        ('include = ["**/*.jpg", "**/*.png"]', 'include = "**/*.jpg"', "images.include must be a list of texts"),
        ('include = ["**/*.jpg", "**/*.png"]', "include = [1]", "images.include must be a list of texts"),
        ('include = ["**/*.jpg", "**/*.png"]', "include = []", "images.include must name at least one"),
        ('"**/thumbnails/**"', '"[9-0]"', r"'\[9-0\]' is not a pattern: bad character range"),
        (
            'commercial_use = "yes"',
            'commercial_use = "maybe"',
            "licence.commercial_use must be one of 'yes', 'no', 'not c",
        ),
        ('name = "CC BY 4.0"', 'name = " "', "licence.name must be text that is not empty"),
        ('url = "https://creativecommons.org/licenses/by/4.0/"', "", "licence.url is missing"),
        ('name = "my-photos"', 'name = "My Photos"', "name must be of a-z"),
        ('kind = "real"', 'kind = "photo"', "kind must be one of 'real', 'synthetic'"),
        ("[licence]", "[license]", "no key license; did you mean licence"),
        ('title = "', "title = ", "not TOML: .*line"),
    ],
)
def test_a_slip_is_named_with_its_file_and_key(tmp_path: Path, old: str, new: str, words: str) -> None:
    with pytest.raises(UsageError, match=f"mine.toml: .*{words}"):
        read_recipe(changed(tmp_path, old, new))


def test_what_is_no_recipe_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'sa1b': did you mean sa-1b\?"):
        load_recipe("sa1b")
    with pytest.raises(UsageError, match=r"there are bdd100k, .*FILE\.toml"):
        load_recipe("zzz")
    with pytest.raises(UsageError, match="no dataset is called 'template'"):
        load_recipe("template")
    with pytest.raises(UsageError, match=r"nowhere\.toml: no such file"):
        load_recipe(tmp_path / "nowhere.toml")
    with pytest.raises(UsageError, match="is a directory"):
        load_recipe(f"{tmp_path}/")
    with pytest.raises(UsageError, match="this is no recipe"):
        load_recipe(recipes_folder() / "demo-scenes.toml")
    (tmp_path / "latin.toml").write_bytes(b'name = "\xff"')
    with pytest.raises(UsageError, match=r"latin\.toml: not TOML"):
        load_recipe(tmp_path / "latin.toml")
    (tmp_path / "flat.toml").write_text('depthsieve_dataset = 1\nlicence = "free"')
    with pytest.raises(UsageError, match=r"flat.toml: name is missing"):
        load_recipe(tmp_path / "flat.toml")
    text = TEMPLATE.read_text().partition("[licence]")[0] + 'licence = "free"'
    (tmp_path / "flat.toml").write_text(text)
    with pytest.raises(UsageError, match=r"licence must be a table, \[licence\]"):
        load_recipe(tmp_path / "flat.toml")


def test_defaults_are_those_of_the_dataclass(tmp_path: Path) -> None:
    lines = [line for line in TEMPLATE.read_text().splitlines() if "may go" not in line]
    (tmp_path / "least.toml").write_text("\n".join(lines))
    least = read_recipe(tmp_path / "least.toml")
    assert least.images == Images(("**/*.jpg", "**/*.png"))
    assert (least.prepare, least.traps, least.sources, least.not_confirmed) == ("", (), (), ())
    assert isinstance(least, Recipe)


def test_the_page_on_datasets_says_what_the_recipes_say() -> None:
    page = (recipes_folder().parent / "docs" / "datasets.md").read_text()
    rows = {
        cells[1].strip("`"): cells
        for cells in (re.split(r"\s*\|\s*", line) for line in page.splitlines())
        if len(cells) > 5
    }
    for name in PAPER:
        _, _, paper, images, commercial, share, _ = rows[name]
        dataset = load_recipe(name)
        assert paper == dataset.images.paper and f"{dataset.images.expected:,}" in images
        assert commercial == dataset.licence.commercial_use
        assert share.partition(",")[0] == dataset.licence.share_labels


def test_a_store_keeps_the_newest_note_of_each_source_and_its_fingerprint(tmp_path: Path) -> None:
    store = make_store(tmp_path, pictures({(14, 28): 2}))
    record = tmp_path / "labels" / "commits" / "generation-0000.json"
    assert store.datasets() == {} and "datasets" not in json.loads(record.read_text())
    irs, hypersim = (load_recipe(name).note for name in ("irs", "hypersim"))
    store = learn(store, {"default": irs, "other": irs})
    store = learn(store, {"other": hypersim})
    store = learn(store, None)
    assert store.datasets() == {"default": irs, "other": hypersim}
    assert [generation.datasets for generation in store.generations()][2:] == [{"other": hypersim}, {}]
    assert store.fingerprint == make_store(tmp_path / "again", pictures({(14, 28): 2})).fingerprint
    assert len(store.index()) == 2 and store.label("default/0.png").depth.shape == (14, 28)


def test_status_shows_the_licence(tmp_path: Path) -> None:
    store = learn(make_store(tmp_path, pictures({(14, 28): 2})), {"default": load_recipe("sa-1b").note})
    assert status(store.location).datasets["default"].licence == "SA-1B Dataset Research License"
    result = CliRunner().invoke(cli, ["status", store.location])
    assert (
        "Dataset sa-1b (source default): SA-1B Dataset Research License (commercial use: no; labels may be passed on: "
        "not confirmed; name the source: yes), https://ai.meta.com/datasets/segment-anything-downloads/."
    ) in result.stdout.splitlines()
    body = json.loads(CliRunner().invoke(cli, ["status", store.location, "--json"]).stdout)
    assert body["datasets"]["default"]["citation"].startswith("@article{kirillov2023segany")
    assert set(body["datasets"]["default"]) == set(DatasetNote.__dataclass_fields__)


def test_the_command_lists_them_and_prints_one() -> None:
    lines = CliRunner().invoke(cli, ["datasets"]).stdout.splitlines()
    rows = [re.split(r"\s{2,}", line) for line in lines[1 : lines.index("")]]
    assert sorted(row[0] for row in rows) == recipe_names()
    assert ["sa-1b", "real", "11,185,362", "no", "not confirmed", "SA-1B Dataset Research License"] in rows
    assert CliRunner().invoke(cli, ["datasets", "irs"]).stdout == (recipes_folder() / "irs.toml").read_text()
    assert CliRunner().invoke(cli, ["datasets", str(TEMPLATE)]).stdout == TEMPLATE.read_text()
    body = json.loads(CliRunner().invoke(cli, ["datasets", "irs", "--json"]).stdout)
    assert body["images"]["include"] == ["**/l_[0-9]*.png"]
    every = json.loads(CliRunner().invoke(cli, ["datasets", "--json"]).stdout)
    assert [one["name"] for one in every] == recipe_names()
    assert isinstance(CliRunner().invoke(cli, ["datasets", "nothing"]).exception, UsageError)
