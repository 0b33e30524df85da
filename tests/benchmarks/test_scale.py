"""benchmarks/scale.py as anyone runs it, with a few thousand rows: every step does what its numbers say."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "scale.py"


@pytest.mark.slow
def test_the_benchmark_runs_and_its_steps_agree(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", str(SCRIPT), "--rows", "3e3", "--tmp", str(tmp_path)]
    ran = subprocess.run([*command, "--json", str(tmp_path / "out.json")], capture_output=True, text=True, timeout=600)
    assert ran.returncode == 0, ran.stderr
    found = {one["step"]: one for one in json.loads((tmp_path / "out.json").read_text())["results"]}
    assert found["manifest"]["rows"] == 3000 == found["plan"]["images"] + found["plan"]["rejected"]
    shards = found["plan"]["shards"]
    assert found["objects"]["shards"] == shards > 20
    assert (found["records"]["records"], found["resume"]["shards"]) == (shards - 10, 10)
    assert found["resume"]["committed"] == shards
    assert found["status"]["labelled"] + found["status"]["failed"] == 3000 and found["status"]["failed"] > 0
    assert found["grow"]["images"] + found["grow"]["rejected"] == 30 == found["status2"]["pending"]
    assert found["status2"]["labelled"] == found["status"]["labelled"]
    assert found["dispatch"]["shards"] >= 3000 / 8 and found["dispatch"]["committed"] == 0
    assert all(one["seconds"] > 0 and one["peak_mib"] > 50 for one in found.values())
    assert ran.stdout.count("MiB") == len(found) == 10
    assert "objects / plan:" in ran.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]  # it cleans up behind itself
