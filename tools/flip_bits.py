"""Flip single bits of a store at random and count how many `verify` finds, by kind of file.

    python tools/flip_bits.py [STORE] [--flips 1000] [--seed 0]

Without STORE one is made of rendered scenes by the embedded teacher. The store is copied first; every flip is undone.
Kinds of files are drawn with equal odds, then a file of the kind, then a bit of it. A flip counts as found only if the
report calls the store damaged and names that very file.
"""

import argparse
import random
import re
import shutil
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

KINDS = (
    ("root documents", r"labels\.zarr/(shards/)?zarr\.json"),
    ("maps of labels", r"labels\.zarr/shards/.*/(depth|reliability)/c/.*"),
    ("other arrays", r"labels\.zarr/shards/.*/c(/.*)?"),
    ("array documents", r"labels\.zarr/shards/.*zarr\.json"),
    ("commit records", r"commits/\d.*"),
    ("generation records", r"commits/generation-.*"),
    ("plans", r"plan/.*"),
    ("error networks", r"networks/.*"),
    ("copies", r"copies/.*"),
    ("layers' arrays", r"layers/.*/c(/.*)?"),
    ("layers' documents", r"layers/.*zarr\.json"),
    ("layers' records", r"layers/.*/commits/.*"),
    ("index", r"index\..*"),
)


def kinds_of(store: Path) -> dict[str, list[Path]]:
    """The store's files by kind; all but those of processes at work."""
    found: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(store.rglob("*")):
        name = path.relative_to(store).as_posix()
        if path.is_file() and path.stat().st_size and not name.startswith(("tmp/", "leases/")):
            found[next(kind for kind, pattern in KINDS if re.fullmatch(pattern, name))].append(path)
    return dict(found)


def flip(store: Path, flips: int, seed: int) -> tuple[dict[str, list[int]], list[str]]:
    """Flips and finds of each kind, and what was missed. The store is as before in the end."""
    from depthsieve.jobs.verify.inspect import inspect_store
    from depthsieve.storage import open_root

    assert inspect_store(open_root(store)).sound
    chance = random.Random(seed)
    by_kind = kinds_of(store)
    counts = {kind: [0, 0] for kind in by_kind}
    missed = []
    for _ in range(flips):
        kind = chance.choice(sorted(by_kind))
        path = chance.choice(by_kind[kind])
        intact = path.read_bytes()
        bit = chance.randrange(8 * len(intact))
        changed = bytearray(intact)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        name = path.relative_to(store).as_posix()
        seen = inspect_store(open_root(store))
        found = any(finding.key == name and not finding.harmless for finding in seen.findings)
        path.write_bytes(intact)
        counts[kind][0] += 1
        counts[kind][1] += found
        if not found:
            missed.append(f"{name} bit {bit}")
    assert inspect_store(open_root(store)).sound
    return counts, missed


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("store", nargs="?", type=Path)
    parser.add_argument("--flips", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store"
        if chosen.store:
            shutil.copytree(chosen.store, store)
        else:
            make_store(Path(folder) / "scenes", store)
        counts, missed = flip(store, chosen.flips, chosen.seed)
    print(f"{'kind of file':<20} {'flips':>6} {'found':>6}")
    for kind, (flips, found) in counts.items():
        print(f"{kind:<20} {flips:>6} {found:>6}")
    print(f"{'all':<20} {chosen.flips:>6} {chosen.flips - len(missed):>6}")
    for line in missed:
        print(f"missed: {line}", file=sys.stderr)
    return int(bool(missed))


def make_store(scenes: Path, store: Path) -> None:
    """Six scenes, labelled in shards of two by the embedded teacher."""
    from PIL import Image

    import depthsieve
    from depthsieve.scenes import render_scene

    scenes.mkdir()
    for seed in range(6):
        scene = render_scene(seed, 126, 168)
        Image.fromarray(scene.rgb_HW3).save(scenes / f"{seed}.png")
    depthsieve.label(scenes, store, teacher="tiny-v1", shard_size=2, progress=False)


if __name__ == "__main__":
    sys.exit(main())
