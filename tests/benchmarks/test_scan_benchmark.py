"""benchmarks/scan.py as anyone runs it, with a few hundred files."""

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "scan.py"


def test_the_benchmark_scans_what_it_makes_and_cleans_up(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", str(SCRIPT), "--files", "300", "--tmp", str(tmp_path)]
    ran = subprocess.run([*command, "--json", str(tmp_path / "out.json")], capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    found = json.loads((tmp_path / "out.json").read_text())
    assert {what: (one["images"], one["opened"]) for what, one in found.items()} == {
        "Pillow, one thread": (300, 300),
        "scan": (300, 300),
        "scan again, nothing changed": (300, 0),
        "scan with --duplicates": (300, 300),
    }
    assert ran.stdout.count("files/s") == 4
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]
