"""Stores that were labelled by an embedded teacher of before: its name leads to other weights now, theirs are kept."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from labelled import decided_bytes, label, small_teacher, write_photos
from numpy.typing import NDArray

import depthsieve
from depthsieve.core.records import TeacherRequest, seal
from depthsieve.store import open_store
from depthsieve.store.features import FeatureReader
from depthsieve.teachers import EARLIER, EMBEDDED, load_teacher, presets, request_at
from depthsieve.teachers.registry import find_checkpoint

FIRST, DIGEST = "tiny-v1", "f44097132bd6a7447ba64f77c3964e7917686c0a1228a7a032c09aaf5830c593"
NOTE = "holds labels of tiny-v1, the `tiny` of before, and resumes with it; a new store gets today's `tiny`"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three photos, and a store of two shards as the first `tiny` labelled it, under that name."""
    folder = tmp_path_factory.mktemp("made")
    label(write_photos(folder / "photos", 3), folder / "store", FIRST, runner="local")
    for record in folder.glob("store/**/generation-0000.json"):
        body = json.loads(record.read_bytes())
        body["teacher"]["name"] = EMBEDDED.name
        record.write_bytes(seal(body))
    return folder


@pytest.fixture
def store(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, where `tiny` leads to another teacher than then."""
    monkeypatch.setitem(presets.FOLDERS, EMBEDDED.name, str(small_teacher(tmp_path / "new")))
    return shutil.copytree(made / "store", tmp_path / "store")


def test_each_digest_leads_to_its_weights() -> None:
    assert EARLIER[DIGEST].name == FIRST
    for digest, earlier in EARLIER.items():
        assert find_checkpoint(earlier.name).digest() == digest


@pytest.mark.parametrize("named", [{}, {"teacher": EMBEDDED.name}], ids=["unnamed", "named as then"])
def test_a_run_resumes_with_the_teacher_of_then(made: Path, store: Path, named: dict[str, str]) -> None:
    (store / "commits/0000-000001.json").unlink()
    done = depthsieve.label(made / "photos", store, progress=False, runner="local", **named)  # type: ignore[arg-type]
    assert done.labelled_now == 1
    assert decided_bytes(store) == decided_bytes(made / "store")
    assert [note for note in done.notes if NOTE in note] == [f"{store} {NOTE}"]


def test_more_photos_get_its_labels_too(made: Path, store: Path, tmp_path: Path) -> None:
    photos = write_photos(shutil.copytree(made / "photos", tmp_path / "photos"), 4)
    grown = depthsieve.label(photos, store, moved=True, progress=False, runner="local")
    assert (grown.labelled_now, open_store(store).spec.weights_digest) == (1, DIGEST)
    assert [one.teacher and one.teacher.name for one in open_store(store).generations()] == [FIRST, FIRST]
    again = label(photos, store, FIRST, runner="local")
    assert again.labelled_now == 0 and not any("of before" in note for note in again.notes)
    label(photos, tmp_path / "fresh", FIRST, runner="local")
    ours, theirs = (open_store(place)["default/photo 3.png"].depth for place in (store, tmp_path / "fresh"))
    np.testing.assert_allclose(ours, theirs, atol=2e-3)  # in a batch of other images


def _embeddings(store: Path) -> NDArray[np.float32]:
    opened = open_store(store)
    table = opened.index()
    return FeatureReader(opened).embeddings(*(table[one].combine_chunks() for one in ("shard", "row")))


def test_a_repair_and_features_take_it(made: Path, store: Path) -> None:
    whole = decided_bytes(store)
    damaged = next(path for path in store.glob("labels.zarr/shards/*/depth/c/**/0") if path.is_file())
    damaged.write_bytes(damaged.read_bytes()[:-9] + b"x" * 9)
    report = depthsieve.verify(store, repair=True, progress=False)
    assert report.sound and report.relabelled
    assert decided_bytes(store) == whole
    before = _embeddings(store)
    shutil.rmtree(store / "layers" / "features")
    assert depthsieve.add_features(store, progress=False).images_now == 3
    np.testing.assert_allclose(_embeddings(store), before, atol=1e-3)


def test_a_new_store_gets_the_teacher_of_today(made: Path, store: Path, tmp_path: Path) -> None:
    label(made / "photos", tmp_path / "other", EMBEDDED.name, runner="local")
    spec = open_store(tmp_path / "other").spec
    assert spec.weights_digest == load_teacher(str(tmp_path / "new")).weights_digest != DIGEST


def test_a_second_teacher_goes_by_its_own_digest(made: Path, store: Path) -> None:
    spec = replace(open_store(store).spec, weights_digest="0" * 64, second={"weights_digest": DIGEST})
    asked = TeacherRequest(EMBEDDED.name, second=TeacherRequest(EMBEDDED.name, size=70))
    assert request_at(asked, spec) == TeacherRequest(EMBEDDED.name, second=TeacherRequest(FIRST, size=70))
    assert request_at(TeacherRequest("./tiny"), open_store(store).spec).name == "./tiny"
