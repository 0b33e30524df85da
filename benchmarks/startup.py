"""Seconds and memory from nothing to a dataset, and to its first batch, for a store of a million made-up images.

    python benchmarks/startup.py                                # a million: two minutes, 200 MB of disk
    python benchmarks/startup.py --rows 1e5 1e6 1e7 --tmp /scratch

Plan, commit records and index are as large as real ones; label shapes are small, and shards of one size share one group
of arrays, by links. Each way is taken in a process of its own, after one that warmed the disk's cache: `open` makes the
dataset, `batch` takes a first batch of 64 labels from it as well, at each scope. `from plans` is opening without
index.parquet. Seconds count from before the imports, whose part is shown; memory is the process's peak.
On a machine that does other things meanwhile, the seconds of a core tell more.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scale import made_spec, manifest, peak_mib

START = time.perf_counter()

BATCH = 64
WAYS = ("open image", "open batch", "open dataset", "batch image", "batch batch", "batch dataset", "from plans image")


def label_shape(height: int, width: int) -> tuple[int, int]:
    """Three small shapes, whatever the image."""
    return (70, 98) if width > height else (98, 70) if height > width else (70, 70)


def make_store(folder: Path, rows: int) -> dict[str, Any]:
    """A store of made-up images, all labelled but those of the last shard."""
    from depthsieve.core.records import NumericsProfile, TeacherRequest, seal
    from depthsieve.planning.draft import draft_batches
    from depthsieve.planning.generation import write_generation
    from depthsieve.storage import open_root
    from depthsieve.store import open_store, schema
    from depthsieve.store.create import open_or_create, prepare_root, write_index

    root = open_root(folder)
    prepare_root(root)
    store = open_or_create(root, made_spec())
    profile = NumericsProfile(1, 1, "cpu", "made up", "none")
    with root.scratch("plan") as scratch, draft_batches(manifest(rows), [], label_shape, scratch, store) as draft:
        write_generation(store, draft, {"default": "/photos"}, profile, TeacherRequest("made up"), 256)
    (generation,) = store.generations()
    table = store.shard_table(generation)
    bodies: dict[tuple[int, ...], dict[str, Any]] = {}
    for number in range(generation.shards - 1):
        shape = (int(table.images_S[number]), *map(int, table.label_shapes_S2[number]))
        if shape not in bodies:
            bodies[shape] = write_group(store, schema.shard_name(0, number), shape)
        shard = schema.shard_name(0, number)
        body = bodies[shape] | {"shard": shard, "group": f"{shard}-{number:012x}"}
        link = folder / schema.group_key(body["group"])
        link.symlink_to(bodies[shape]["group"], target_is_directory=True)
        (folder / schema.commit_key(shard)).write_bytes(seal(body))
    write_index(open_store(folder))
    return {"shards": generation.shards - 1, "index_bytes": (folder / schema.INDEX).stat().st_size}


def write_group(store: Any, shard_id: str, shape: tuple[int, ...]) -> dict[str, Any]:
    """Real arrays of made-up labels, and the commit record of a shard that has them."""
    import numpy as np

    from depthsieve.core.records import ImageRecord, Shard
    from depthsieve.store.writer import CommitContext, ShardArrays, publish_group

    random = np.random.default_rng(list(shape))
    count = shape[0]
    codes_NHW = np.clip(random.normal(180, 30, shape), 1, 255).astype(np.uint8)
    arrays = {
        "depth": np.cumsum(random.random(shape), axis=2).astype(np.float16),
        "reliability": codes_NHW,
        "histogram": np.stack([np.bincount(one.ravel(), minlength=256).astype(np.uint32) for one in codes_NHW]),
        "id": np.array(["made up"] * count, object),
        "status": np.zeros(count, np.uint8),
        "reason": np.array([""] * count, object),
        "source_height": np.full(count, 768, np.int32),
        "source_width": np.full(count, 1024, np.int32),
        "orientation": np.ones(count, np.uint8),
        "focal_px": np.zeros(count, np.float32),
        "content_sha256": np.array(["0" * 64] * count, object),
    }
    images = tuple(ImageRecord("made up", 1, 1, 1024, 768) for _ in range(count))
    context = CommitContext(store.fingerprint, "disparity", "", "0" * 64)
    return publish_group(store.root, Shard(shard_id, shape[1:], images), ShardArrays(arrays), context)


def open_one(folder: Path, way: str) -> dict[str, Any]:
    """One way in, in this process."""
    what, _, scope = way.rpartition(" ")
    from depthsieve.training import PseudoLabelDataset

    imported = time.perf_counter() - START
    dataset = PseudoLabelDataset(folder, images=False, scope=scope, crop=56)
    found = {"images": len(dataset)}
    if what == "batch":
        batch = next(iter(dataset.loader(BATCH)))
        assert batch["depth"].shape == (BATCH, 56, 56)
    taken = {"seconds": time.perf_counter() - START, "cpu_s": time.process_time(), "imports_s": imported}
    return found | taken | {"peak_mib": peak_mib()}


def in_fresh_process(folder: Path, way: str) -> dict[str, Any]:
    """One way in, in a process of its own."""
    command = [sys.executable, __file__, "--tmp", str(folder), "--way", way]
    ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(ran.stdout.splitlines()[-1]))


def measure(rows: int, tmp: Path) -> Iterator[dict[str, Any]]:
    """All ways into a store of so many images."""
    with tempfile.TemporaryDirectory(prefix="startup-", dir=tmp) as name:
        folder = Path(name) / "store"
        made = make_store(folder, rows)
        print(
            f"{rows:>11,}  a store of {made['shards']:,} shards, index {made['index_bytes'] / 1e6:.0f} MB", flush=True
        )
        in_fresh_process(folder, "open image")
        for way in WAYS:
            if way.startswith("from plans"):
                (folder / "index.json").unlink()
            yield {"rows": rows, "way": way} | in_fresh_process(folder, way)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=float, nargs="+", default=[1e6])
    parser.add_argument("--tmp", type=Path, default=Path(tempfile.gettempdir()), help="where the stores are made")
    parser.add_argument("--json", type=Path, help="also write the results here")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        print(json.dumps(open_one(options.tmp, options.way)))
        return
    results = []
    for rows in options.rows:
        for one in measure(int(rows), options.tmp):
            results.append(one)
            parts = f"{one['seconds']:6.2f} s (imports {one['imports_s']:.2f} s; {one['cpu_s']:.2f} s of a core)"
            parts += f" {one['peak_mib']:6,.0f} MiB"
            print(f"{one['rows']:>11,}  {one['way']:<16} {parts}  {one['images']:,} images", flush=True)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
