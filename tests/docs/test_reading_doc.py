"""docs/reading.md: its snippets run as they stand, in order, and print what they say."""

import re
from pathlib import Path

import pytest
from storemaker import Picture, made_label, make_store

TEXT = (Path(__file__).parents[2] / "docs" / "reading.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
PICTURES = [
    Picture("hall.png", (28, 42), (14, 21)),
    Picture("blurred.png", (28, 42), (14, 21), failed=True),
    Picture("tower.png", (40, 30), (20, 15)),
]


def test_the_snippets_run_and_say_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = make_store(tmp_path, PICTURES)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    assert len(SNIPPETS) == 4
    exec("\n".join(SNIPPETS), names)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"<Store {store.location}: 2 images labelled, 1 failed, 0 pending; disparity by made up>"
    assert lines[1:4] == ["2 True", "default/hall.png", "default/tower.png"]
    assert lines[4] == "default/hall.png (14, 21) of a photo of (28, 42)"
    assert lines[5].startswith("disparity 0.1") and lines[5].endswith("of the pixels kept")
    mean = made_label(0, (14, 21))[1].mean().round()
    assert lines[6] == f"{{'default/hall.png': {mean:.1f}, 'default/blurred.png': nan}}"
    assert lines[7] == "[('default/blurred.png', 'made up')]"
