"""Time and memory of planning, resuming and counting stores of tens of millions of images, without one image or model.

    python benchmarks/scale.py                                     # a million rows: two minutes
    python benchmarks/scale.py --rows 1e6 1e7 62e6 --tmp /scratch  # the curve: about an hour, 20 GB of disk

The teacher knows label shapes only, and manifests are made up as they are read: ids of 45 to 60 characters in no order,
60% of one size, a tenth of any size from 400 to 2,000 pixels a side, one image in 100,000 too wide to be labelled. Each
step runs in a process of its own; its seconds count from before its imports, its memory is that process's peak. Steps:

* manifest: makes up the rows and drops them, to know what of the next step is our making;
* plan: label shapes, the sort, shards, the plan's files and the record that commits it, each file flushed;
* (records): commit records for all shards but the last ten, written without depthsieve's flushing. Each is sealed like
  a real one and as long, 6 KB: 23 files with digests, 256 counts; every fiftieth shard has a failed image;
* resume: opens the store, lists what is pending, takes a lease and hands the first shard to a runner that does nothing;
* status: counts what is labelled, failed and pending, with every record's digest checked;
* index: writes index.parquet;
* grow: plans again, from a manifest that has 1% more: every row is looked up in the store;
* status2: as status, on the two generations;
* dispatch: shards of eight images of at most a million rows, all through the real dispatch and leases, to a runner that
  answers at once. The store lies in /dev/shm where there is one: flushing a lease to a disk takes milliseconds;
* objects: planning as it was, with an object an image; at most a million rows.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

START = time.perf_counter()

STEPS = ("manifest", "plan", "records", "resume", "status", "index", "grow", "status2", "dispatch", "objects")
BYTES_PER_ROW, BYTES_PER_SHARD = 250, 8192
"""Room on the disk: the plan and its copy, the index, what sorting takes; a commit record in whole blocks."""

TAIL = 10
MOST_OBJECTS = 1_000_000
SMALL_SHARD = 8
BATCH = 1 << 17
SIZES = ((768, 1024), (1024, 768), (1080, 1920), (1500, 2250), (0, 0), (400, 8000))
"""Heights and widths; (0, 0) stands for any."""
SHARES = (0.6, 0.15, 0.1, 0.05, 0.09999, 0.00001)


def label_shape(height: int, width: int) -> tuple[int, int]:
    """The official rule at 518 pixels, as Depth Anything's teacher has it."""
    from depthsieve.core.errors import ImageRejected

    scale = max(518 / height, 518 / width)
    rows, columns = (max(37, round(side * scale / 14)) for side in (height, width))
    if rows * columns > 16384:
        raise ImageRejected(f"{height}x{width} takes {rows * columns} tokens, more than 16384")
    return rows * 14, columns * 14


def manifest(rows: int) -> Iterator[Any]:
    """Made-up tables of images for a draft; a longer manifest begins with the shorter one's rows."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    from depthsieve.planning.draft import IMAGES_SCHEMA

    digits = np.frombuffer("".join(f"{byte:02x}" for byte in range(256)).encode(), "S2")
    for start in range(0, rows, BATCH):
        random = np.random.default_rng(start)
        numbers = np.arange(start, start + BATCH, dtype=">u8") * np.uint64(0x9E3779B97F4A7C15)  # each once, in no order
        names = pa.array(digits[numbers.astype(">u8").view(np.uint8)].view("S16")).cast(pa.string())
        words = pa.array(["harbour", "street", "living-room", "mountain", "market"]).take(
            pa.array(random.integers(0, 5, BATCH))
        )
        first, second = (pc.utf8_slice_codeunits(names, at, at + 3) for at in (0, 3))
        ids = pc.binary_join_element_wise("default/train-", first, "/", second, "/", names, "-", words, ".jpg", "")
        sizes = np.array(SIZES, np.int32)[random.choice(len(SIZES), BATCH, p=SHARES)]
        sizes = np.where(sizes == 0, random.integers(400, 2001, sizes.shape, dtype=np.int32), sizes)
        columns = {
            "id": ids,
            "size": random.integers(40_000, 900_000, BATCH),
            "mtime_ns": random.integers(16 * 10**17, 17 * 10**17, BATCH),
            "width": sizes[:, 1],
            "height": sizes[:, 0],
            "orientation": np.ones(BATCH, np.int8),
        }
        yield pa.table(columns, schema=IMAGES_SCHEMA)[: rows - start]


def peak_mib() -> float:
    """This process's peak of memory, MiB."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().partition("VmHWM:")[2].split()[0]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 1024


def now_mib() -> float:
    """This process's memory now, MiB; its peak where the system does not tell."""
    status = Path("/proc/self/status")
    return int(status.read_text().partition("VmRSS:")[2].split()[0]) / 1024 if status.exists() else peak_mib()


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def made_spec() -> Any:
    """A label spec of no teacher."""
    from depthsieve.core.records import LabelSpec
    from depthsieve.store import schema

    return LabelSpec("0" * 64, "disparity", "", "float32", {"rule": "made up"}, ("flip",), "made up", schema.ENCODING)


def write_plan(folder: Path, rows: int, shard_size: int = 256) -> dict[str, Any]:
    """Plan what the store in ``folder``, made if need be, does not know of a made-up manifest."""
    from depthsieve.core.records import NumericsProfile, TeacherRequest
    from depthsieve.planning.draft import draft_batches
    from depthsieve.planning.generation import write_generation
    from depthsieve.storage import open_root
    from depthsieve.store.create import open_or_create, prepare_root

    root = open_root(folder)
    prepare_root(root)
    store = open_or_create(root, made_spec())
    profile = NumericsProfile(1, 1, "cpu", "made up", "none")
    with root.scratch("plan") as scratch, draft_batches(manifest(rows), [], label_shape, scratch, store) as draft:
        read_in = time.perf_counter() - START
        write_generation(store, draft, {"default": "/photos"}, profile, TeacherRequest("made up"), shard_size)
        done = {"images": draft.images, "shards": draft.shards(shard_size), "rejected": len(draft.rejected)}
        spilled = folder_bytes(scratch)
    return done | {
        "read_in_s": round(read_in, 1),
        "spilled_bytes": spilled,
        "plan_bytes": folder_bytes(folder / "plan"),
    }


def do_manifest(store: Path, rows: int) -> dict[str, Any]:
    return {"rows": sum(len(table) for table in manifest(rows))}


def do_plan(store: Path, rows: int) -> dict[str, Any]:
    return write_plan(store, rows)


def do_records(store: Path, rows: int) -> dict[str, Any]:
    """Commit records of all shards but the last :data:`TAIL`."""
    import numpy as np

    from depthsieve.core.records import seal
    from depthsieve.store import open_store, schema
    from depthsieve.store.plan import PART_SHARDS

    opened = open_store(store)
    (generation,) = opened.generations()
    histogram = np.random.default_rng(0).integers(10**5, 10**6, 256).tolist()
    arrays = [spec.name for spec in (*schema.MAPS, *schema.ROWS)]
    names = ["zarr.json", *(f"{one}/{file}" for one in arrays for file in ("zarr.json", "c/0/0/0"))]
    files = {name: {"sha256": f"{number:064x}", "bytes": 100_000 + number} for number, name in enumerate(names)}
    counts = opened.shard_table(generation).images_S.tolist()
    size = 0
    for part, table in enumerate(opened.read_plan(generation, ["id", "row"])):
        firsts = table.filter(np.asarray(table["row"]) == 0)["id"].to_pylist()
        for number, image in enumerate(firsts, part * PART_SHARDS):
            shard = schema.shard_name(0, number)
            if number >= generation.shards - TAIL:
                continue
            body = {
                "format_version": schema.FORMAT_VERSION,
                "shard": shard,
                "group": f"{shard}-{number:012x}",
                "fingerprint": opened.fingerprint,
                "profile": "0" * 64,
                "files": files,
                "content_sha256": f"{number:064x}",
                "images": counts[number],
                "failures": [{"row": 0, "id": image, "reason": "image file is truncated"}] if number % 50 == 0 else [],
                "histogram": histogram,
            }
            data = seal(body)
            size = len(data)
            (store / schema.commit_key(shard)).write_bytes(data)
    return {"records": generation.shards - TAIL, "bytes_each": size}


def null_dispatch(store: Path, on_task: Callable[[int], None], commit: bool) -> dict[str, Any]:
    """All that is pending through the real dispatch, to a runner that answers at once."""
    import depthsieve.jobs.label  # noqa: F401 - its imports are part of what a driver holds
    from depthsieve.core.records import LabelJob, ShardResult, TeacherRequest, seal
    from depthsieve.core.stopping import Stop
    from depthsieve.runners.dispatch import dispatch
    from depthsieve.store import open_store, schema
    from depthsieve.store.leases import Leases

    opened = open_store(store)
    todo = opened.pending()
    seen = 0

    def runner(job: Any, tasks: Iterator[Any], stop: Any) -> Iterator[Any]:
        nonlocal seen
        for task in tasks:
            seen += 1
            on_task(seen)
            if commit:
                body = {"shard": task.shard_id, "fingerprint": opened.fingerprint, "failures": []}
                opened.root.create(schema.commit_key(task.shard_id), seal(body))
            yield ShardResult(task.shard_id, labelled=1)

    job = LabelJob(str(store), TeacherRequest("made up"), opened.fingerprint, (), (("default", "/photos"),))
    with Leases(opened.root) as leases:
        outcome = dispatch(opened, todo, job, leases, lambda on_images: runner, Stop(), progress=False)
    assert outcome.errors == () and outcome.labelled == seen == len(todo)
    return {"shards": seen, "committed": len(opened.committed())}


def do_resume(store: Path, rows: int) -> dict[str, Any]:
    first = []

    def on_task(seen: int) -> None:
        first.append(time.perf_counter() - START)

    done = null_dispatch(store, on_task, commit=True)
    return done | {"seconds": round(first[0], 2)}


def do_dispatch(store: Path, rows: int) -> dict[str, Any]:
    """Both halves in processes of their own: what planning takes is no part of what a driver does."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="scale-", dir=memory if memory.is_dir() else store.parent) as folder:
        write_plan(Path(folder), min(rows, MOST_OBJECTS), SMALL_SHARD)
        here = str(Path(__file__).parent)
        code = f"import sys; sys.path.insert(0, {here!r}); import scale; scale.in_flight({folder!r})"
        ran = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(ran.stdout.splitlines()[-1]))


def in_flight(folder: str) -> None:
    """The driver's memory as shards pass through it, on stdout as JSON."""
    memory: dict[int, float] = {}

    def on_task(seen: int) -> None:
        if seen in (1, 100) or seen % 1000 == 0:
            memory[seen] = now_mib()

    done = null_dispatch(Path(folder), on_task, commit=False)
    early, late = memory.get(1000, memory[1]), memory[max(memory)]
    seconds = round(time.perf_counter() - START, 2)
    growth = round(late - early, 1)
    print(json.dumps(done | {"seconds": seconds, "peak_mib": round(peak_mib()), "growth_after_1000_mib": growth}))


def do_status(store: Path, rows: int) -> dict[str, Any]:
    from depthsieve.store import open_store
    from depthsieve.store.standing import standing

    stands = standing(open_store(store))
    return {"labelled": stands.labelled, "pending": stands.pending, "failed": len(stands.unlabelled)}


def do_index(store: Path, rows: int) -> dict[str, Any]:
    from depthsieve.store import open_store, schema
    from depthsieve.store.create import write_index

    write_index(open_store(store))
    return {"bytes": (store / schema.INDEX).stat().st_size}


def do_grow(store: Path, rows: int) -> dict[str, Any]:
    return write_plan(store, rows + rows // 100)


def do_objects(store: Path, rows: int) -> dict[str, Any]:
    """Planning with an object an image, lists and dicts, as it was before."""
    from depthsieve.core.errors import ImageRejected
    from depthsieve.core.records import ImageRecord, NumericsProfile, Shard, TeacherRequest
    from depthsieve.planning.sharding import images_a_shard
    from depthsieve.storage import open_root
    from depthsieve.store import schema
    from depthsieve.store.create import add_generation, open_or_create, prepare_root
    from depthsieve.store.plan import PlannedShard, rejected_table, removed_table

    images = [ImageRecord(**row) for table in manifest(min(rows, MOST_OBJECTS)) for row in table.to_pylist()]
    buckets: dict[tuple[int, int], list[ImageRecord]] = {}
    for image in images:
        try:
            buckets.setdefault(label_shape(image.height, image.width), []).append(image)
        except ImageRejected:
            continue
    shards: list[Shard] = []
    for shape, members in sorted(buckets.items()):
        members.sort(key=lambda image: image.id)
        count = images_a_shard(shape, 256)
        for start in range(0, len(members), count):
            shards.append(Shard(schema.shard_name(0, len(shards)), shape, tuple(members[start : start + count])))
    root = open_root(store.with_name("objects"))
    prepare_root(root)
    opened = open_or_create(root, made_spec())
    tables = (PlannedShard(shard, ("add",) * len(shard.images)).table() for shard in shards)
    profile = NumericsProfile(1, 1, "cpu", "made up", "none")
    out = (rejected_table([]), removed_table([]))
    add_generation(opened, tables, *out, {"default": "/photos"}, profile, TeacherRequest("made up"))
    shutil.rmtree(store.with_name("objects"))
    return {"images": len(images), "shards": len(shards)}


def run_step(step: str, store: Path, rows: int) -> dict[str, Any]:
    """One step in a process of its own."""
    command = [sys.executable, __file__, "--step", step, "--rows", str(rows), "--tmp", str(store)]
    ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(ran.stdout.splitlines()[-1]))


def measure(rows: int, tmp: Path, steps: list[str]) -> list[dict[str, Any]]:
    """All steps at one number of rows."""
    results = []
    with tempfile.TemporaryDirectory(prefix="scale-", dir=tmp) as folder:
        for step in steps:
            result = {"step": step, "rows": rows} | run_step(step, Path(folder) / "store", rows)
            results.append(result)
            rest = {key: value for key, value in result.items() if key not in ("step", "rows", "seconds", "peak_mib")}
            told = ", ".join(f"{key} {value:,}" for key, value in rest.items())
            print(
                f"{rows:>11,}  {step:<9} {result['seconds']:>8.1f} s {result['peak_mib']:>6,.0f} MiB  {told}",
                flush=True,
            )
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=float, nargs="+", default=[1e6])
    parser.add_argument("--tmp", type=Path, default=Path(tempfile.gettempdir()), help="where the stores are made")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS), help="later ones need earlier ones")
    parser.add_argument("--json", type=Path, help="also write the results here")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    sizes = [int(rows) for rows in options.rows]
    if options.step:
        work = {"status2": do_status}.get(options.step) or globals()[f"do_{options.step}"]
        result = work(options.tmp, sizes[0])
        timed = {"seconds": round(time.perf_counter() - START, 2), "peak_mib": round(peak_mib())}
        print(json.dumps(timed | result))
        return
    needed = max(rows * BYTES_PER_ROW + rows // 200 * BYTES_PER_SHARD for rows in sizes)
    free = shutil.disk_usage(options.tmp).free
    if needed > free:
        parser.error(
            f"{options.tmp} has {free / 1e9:.3g} GB free, this takes about {needed / 1e9:.3g} GB: name another --tmp"
        )
    results = [one for rows in sizes for one in measure(rows, options.tmp, options.steps)]
    by_step = {(one["step"], one["rows"]): one for one in results}
    for rows in sizes:
        plan, objects = by_step.get(("plan", rows)), by_step.get(("objects", rows))
        if plan and objects and rows <= MOST_OBJECTS:
            times, memory = objects["seconds"] / plan["seconds"], objects["peak_mib"] / plan["peak_mib"]
            print(f"{rows:>11,}  objects / plan: {times:.1f} times the seconds, {memory:.1f} times the memory")
    if options.json:
        options.json.write_text(json.dumps({"cores": os.cpu_count(), "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
