"""benchmarks/startup.py with a few thousand rows: its store is one that the loader reads, each way."""

from pathlib import Path

import pytest
import startup

from depthsieve.store import index, open_store


def test_the_benchmark_opens_what_it_makes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "store"
    made = startup.make_store(folder, 1200)
    assert made["shards"] == 4 == len(open_store(folder).committed())
    found = [startup.open_one(folder, way) for way in ("open image", "batch image", "batch batch", "batch dataset")]
    assert len({one["images"] for one in found}) == 1 and 500 < found[0]["images"] < 1200
    assert all(0 < one["imports_s"] < one["seconds"] and one["peak_mib"] > 50 < one["cpu_s"] * 1e6 for one in found)
    with monkeypatch.context() as patched:
        patched.setattr(index, "build_index", lambda store, **_: pytest.fail("the plans were read"))
        startup.open_one(folder, "open image")
        (folder / "index.json").unlink()
        with pytest.raises(pytest.fail.Exception, match="the plans were read"):
            startup.open_one(folder, "from plans image")
