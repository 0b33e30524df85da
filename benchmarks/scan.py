"""How fast `depthsieve scan` reads headers, and how much memory it takes, against a plain loop over Pillow's own.

    python benchmarks/scan.py [PHOTOS] [--files 20000] [--json OUT]

Makes a folder of JPEGs (hard links to copies of the photos, or to made-up ones without a folder), so all of it is in
the page cache, and scans it in fresh processes: for the first time, again with nothing changed, and with hashes. The
other way is `PIL.Image.open` on each file of a sorted listing, in one thread, which keeps nothing and checks nothing.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

IN_A_FOLDER = 1000
"""Files in each folder, as in most datasets."""

SCAN = """
import json, resource, sys, time
import depthsieve
start = time.perf_counter()
summary = depthsieve.scan(sys.argv[1], sys.argv[2], progress=False, duplicates=bool(int(sys.argv[3])))
seconds = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"images": summary.images, "opened": summary.opened, "seconds": seconds, "peak_mib": peak}))
"""

PILLOW = """
import json, os, resource, sys, time
from PIL import Image
start = time.perf_counter()
paths = sorted(os.path.join(folder, name) for folder, _, names in os.walk(sys.argv[1]) for name in names)
sizes = []
for path in paths:
    with Image.open(path) as image:
        sizes.append(image.size)
seconds = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"images": len(sizes), "opened": len(sizes), "seconds": seconds, "peak_mib": peak}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("photos", type=Path, nargs="?", help="a folder with JPEGs to copy")
    parser.add_argument("--files", type=lambda text: int(float(text)), default=20_000)
    parser.add_argument("--tmp", type=Path, help="where the folder is made, and removed again")
    parser.add_argument("--json", type=Path, help="write the numbers here too")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.tmp, prefix="scan-") as name:
        folder = Path(name)
        photos = make_files(folder / "photos", arguments.photos, arguments.files)
        manifest = str(folder / "m.parquet")
        results = {
            "Pillow, one thread": measure(PILLOW, str(photos)),
            "scan": measure(SCAN, str(photos), manifest, "0"),
            "scan again, nothing changed": measure(SCAN, str(photos), manifest, "0"),
            "scan with --duplicates": measure(SCAN, str(photos), manifest, "1"),
        }
    plain = results["Pillow, one thread"]
    print(f"{arguments.files:,} JPEGs, warm, {os.cpu_count()} cores")
    for what, found in results.items():
        rate = found["images"] / found["seconds"]
        ratio = rate * plain["seconds"] / plain["images"]
        print(f"{what:28} {rate:8,.0f} files/s  {ratio:5.2f} of Pillow  {found['peak_mib']:6,.0f} MiB at most")
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))


def make_files(folder: Path, photos: Path | None, count: int) -> Path:
    """A folder of ``count`` JPEGs, of which most share their bytes on the disk."""
    folder.mkdir()
    kept = folder.parent / "kept"
    kept.mkdir()
    originals = sorted(path for path in photos.iterdir() if path.suffix in (".jpg", ".jpeg")) if photos else []
    for number, path in enumerate(originals):
        shutil.copyfile(path, kept / f"{number}.jpg")
    if not originals:
        random = np.random.default_rng(0)
        for number in range(8):
            coarse = Image.fromarray(random.integers(0, 256, (12, 16, 3), dtype=np.uint8))
            coarse.resize((1280, 960), Image.Resampling.BICUBIC).save(kept / f"{number}.jpg", quality=90)
    kinds = sorted(kept.iterdir())
    turn: list[Path] = []
    for number in range(count):
        if number % IN_A_FOLDER == 0:
            place = folder / f"{number // IN_A_FOLDER:05d}"
            place.mkdir()
        if number % (30_000 * len(kinds)) == 0:  # file systems allow a file some tens of thousands of names
            turn = [Path(shutil.copyfile(path, kept / f"{number}-{path.name}")) for path in kinds]
        os.link(turn[number % len(turn)], place / f"{number:08d}.jpg")
    return folder


def measure(script: str, *arguments: str) -> dict[str, float]:
    """Run in a fresh process, and read what it prints."""
    ran = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(ran.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    main()
