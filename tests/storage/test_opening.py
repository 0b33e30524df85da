"""From what a user names to a place: ``~`` is what a shell makes of it, everywhere, in one function."""

from pathlib import Path

import pytest
from labelled import write_photos

import depthsieve
from depthsieve.sources import open_source, root_of
from depthsieve.storage import expand, open_root


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.mark.parametrize(
    ("named", "meant"),
    [
        ("~/labels", "{home}/labels"),
        ("~", "{home}"),
        (Path("~/labels"), "{home}/labels"),
        ("./~", "./~"),
        ("a/~", "a/~"),
        ("~nobody-of-that-name/x", "~nobody-of-that-name/x"),
        ("s3://bucket/~/x", "s3://bucket/~/x"),
    ],
)
def test_a_tilde_is_what_a_shell_makes_of_it(home: Path, named: str | Path, meant: str) -> None:
    assert expand(named) == meant.format(home=home)


def test_stores_sources_and_manifests_may_lie_below_a_tilde(home: Path) -> None:
    write_photos(home / "photos", 2)
    assert open_root("~/labels").location == str(home / "labels")
    assert open_source("~/photos").root == root_of("~/photos") == str(home / "photos")
    (home / "list.txt").write_text("photo 0.png\n")
    assert open_source("~/list.txt", root="~/photos").root == str(home / "photos")
    assert depthsieve.scan("~/photos", out="~/m.parquet", progress=False).manifest == str(home / "m.parquet")
    assert depthsieve.plan("~/m.parquet", "~/labels", teacher="tiny", progress=False, write=True).images == 2
    assert depthsieve.status("~/labels").pending == 2
    assert depthsieve.open_store("~/labels").path == home / "labels"
    assert not (home.parent / "~").exists()
