"""Teachers named by the function that makes them: found where labels are made, remembered, refused in one line."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import plug_in
import pytest
from labelled import decided_bytes, job_of, unlabelled_copy, write_photos

import depthsieve
from depthsieve.core.errors import TeacherError, TeacherNotFound, TeacherUnsupported
from depthsieve.labelling.isolation import label_isolated
from depthsieve.store import open_store
from depthsieve.teachers import full_name, load_teacher
from depthsieve.teachers.modules import FactoryName

OPTIONS: dict[str, Any] = {"batch_size": 2, "threads": 1, "signals": "flip", "progress": False}


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder with a module and a package in it, neither of which Python finds from elsewhere."""
    folder = tmp_path / "my work"
    (folder / "pack").mkdir(parents=True)
    (folder / "mine.py").write_text(plug_in.MODULE)
    (folder / "pack" / "__init__.py").write_text("")
    (folder / "pack" / "inner.py").write_text("from pack import other\nload = other.load\n")
    (folder / "pack" / "other.py").write_text(plug_in.MODULE)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])
    monkeypatch.chdir(folder)
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] in ("mine", "pack")]:
        del sys.modules[name]


def test_a_store_resumes_anywhere_with_a_module_of_the_working_folder(
    tmp_path: Path, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos, store = write_photos(tmp_path / "photos", 2), tmp_path / "store"
    depthsieve.label(photos, store, teacher="mine:load", **OPTIONS)
    request = open_store(store).generations()[0].teacher
    assert request is not None and request.name == f"{work}/mine:load"
    monkeypatch.chdir(tmp_path)
    write_photos(photos, 1, first=2)
    summary = depthsieve.label(photos, store, progress=False)
    assert (summary.labelled, summary.labelled_now) == (3, 1)
    assert any(f"--teacher {work}/mine:load" in note for note in summary.notes)
    (group,) = (store / "labels.zarr" / "shards").glob("0001-000000-*")
    shutil.rmtree(group)
    report = depthsieve.verify(store, repair=True, progress=False)
    assert (report.sound, report.relabelled) == (True, 1)
    job = job_of(copy := unlabelled_copy(store, tmp_path / "copy"), photos, Path(f"{work}/mine:load"), cores=1)
    assert label_isolated(job, "0000-000000").error is None, "another process finds it too"
    labels = "labels.zarr/shards/0000-000000-"
    ours, theirs = ({k: v for k, v in decided_bytes(one).items() if k.startswith(labels)} for one in (copy, store))
    assert ours == theirs != {}


def test_the_same_teacher_has_one_fingerprint_however_it_is_named(tmp_path: Path, work: Path, installed: Path) -> None:
    photos = write_photos(tmp_path / "photos", 1)
    names = ("brightness", "acme:load", "mine:Brightness", "pack.inner:load", f"{work}/pack.other:load")
    for number, name in enumerate(names):
        depthsieve.label(photos, tmp_path / str(number), teacher=name, **OPTIONS)
    assert len({open_store(tmp_path / str(number)).fingerprint for number in range(len(names))}) == 1


def test_only_a_module_of_the_working_folder_gets_its_path(work: Path, tmp_path: Path) -> None:
    (work / "json.py").write_text("")
    assert full_name("json:loads") == "json:loads", "Python's own goes before"
    assert full_name("pack.inner:load") == f"{work}/pack.inner:load"
    assert full_name("nowhere:load") == "nowhere:load"
    assert full_name("../my work/mine:load") == f"{work}/../my work/mine:load"
    for name in ("owner/model", "tiny", "s3://bucket/a", "a b:c", "1:a", "a:", "/folder", "C:\\a"):
        assert FactoryName.parse(name) is None, name


@pytest.mark.parametrize(
    ("name", "text", "kind", "words"),
    [
        ("gone:load", None, TeacherNotFound, "there is no module 'gone' in the working folder and in Python's path; "),
        ("pack.gone:load", None, TeacherNotFound, "there is no module 'pack.gone' in "),
        ("mine:lode", None, TeacherNotFound, "mine.py) has no 'lode'; did you mean 'load'?"),
        (
            "mine:Brightness.name",
            None,
            TeacherUnsupported,
            "'Brightness.name' of module 'mine' is str, and no function",
        ),
        ("mine:load", "import no_such", TeacherUnsupported, "ModuleNotFoundError: No module named 'no_such'"),
        ("mine:load", "import mine.deeper", TeacherUnsupported, "'mine' is not a package"),
        ("mine:load", "def load(", TeacherUnsupported, "module 'mine' cannot be imported: SyntaxError: "),
        ("mine:load", "raise SystemExit('bye')", TeacherUnsupported, "cannot be imported: SystemExit: bye"),
        ("mine:load", "def load(request): raise ValueError('a\\nb')", TeacherUnsupported, "loaded: ValueError: a"),
        ("mine:load", "def load(request): raise SystemExit", TeacherUnsupported, "cannot be loaded: SystemExit"),
        ("mine:load", "def load(): pass", TeacherUnsupported, "TypeError: load() takes 0 positional arguments"),
        ("mine:load", "def load(request): return None", TeacherUnsupported, "it returned, NoneType, is no teacher"),
        ("./json:loads", "", TeacherUnsupported, "module 'json' comes from "),
    ],
)
def test_what_cannot_be_had_is_one_line(
    work: Path, name: str, text: str | None, kind: type[TeacherError], words: str
) -> None:
    if text is not None:
        (work / "mine.py").write_text(text)
    with pytest.raises(kind) as caught:
        load_teacher(name)
    line = str(caught.value)
    assert words in line and line.startswith(f"teacher {name!r}") and "\n" not in line
