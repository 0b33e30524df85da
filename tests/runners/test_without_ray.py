"""Where Ray, an extra, is not installed: one line that names it, before anything is written, and all else works."""

import sys
from pathlib import Path

import pytest
from labelled import write_photos

import depthsieve
from depthsieve.core.errors import RunError

LINE = r"need Ray, which is not installed: pip install 'depthsieve\[ray\]'; without it --runner local"


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two photos, and a Python that has no Ray."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "ray" or "runners.ray" in name]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ray", None)
    write_photos(tmp_path / "photos", 2)
    return tmp_path / "photos"


@pytest.mark.parametrize(
    "options", [{"workers": 2}, {"runner": "ray"}, {"address": "auto"}, {"address": "10.0.0.1:6379"}], ids=str
)
def test_one_line_says_how_to_get_it(photos: Path, light: str, options: dict[str, object]) -> None:
    store = photos.parent / "store"
    with pytest.raises(RunError, match=LINE):
        depthsieve.label(photos, store, teacher=light, progress=False, **options)  # type: ignore[arg-type]
    assert not store.exists()


def test_one_worker_and_plans_for_several_need_none(photos: Path, light: str) -> None:
    store = photos.parent / "store"
    depthsieve.plan(photos, store, teacher=light, workers=2, trial=False, write=True, progress=False)
    assert depthsieve.label(photos, store, part="1/1", threads=1, progress=False).labelled_now == 2
