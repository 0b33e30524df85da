"""How long `depthsieve report` takes on a large store, and how soon its page can be used.

    python benchmarks/report_scale.py                      # 100,000 images
    python benchmarks/report_scale.py --rows 1e6 --tmp /big

The store is made up: small labels of noise, signals at random, and one photo under as many names, by links. It is
planned, committed and read as any other. Prints seconds and peak memory of the report, which runs in a process of its
own, what it wrote, and, where Playwright and Chromium are there, the seconds until a browser shows the gallery, answers
a search and shows an image, from nothing, and until it has sorted the gallery: the median of five tries, and the range.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

PHOTO = (480, 640)
LABEL = (28, 42)
SHARD = 256
FAILED = 1000
"""Every so many-th image has failed."""
TRIES = 5


def make_store(folder: Path, rows: int) -> Path:
    """A store of ``rows`` images in ``folder``, with an index that has signals."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image
    from scale import made_spec

    from depthsieve.core.records import ImageRecord, NumericsProfile, Shard, TeacherRequest, seal, unseal
    from depthsieve.features import COLUMNS
    from depthsieve.storage import open_root
    from depthsieve.store import open_store, schema
    from depthsieve.store.create import add_generation, open_or_create, prepare_root, write_index
    from depthsieve.store.plan import PlannedShard, rejected_table, removed_table
    from depthsieve.store.writer import CommitContext, ShardArrays, commit_shard

    random = np.random.default_rng(0)
    photos, path = folder / "photos", folder / "labels"
    photos.mkdir()
    first = photos / "photo.jpg"
    coarse = Image.fromarray(random.integers(0, 256, (8, 10, 3), dtype=np.uint8))
    coarse.resize(PHOTO[::-1], Image.Resampling.BICUBIC).save(first, quality=90)
    digest, size = hashlib.sha256(first.read_bytes()).hexdigest(), first.stat().st_size
    root = open_root(path)
    prepare_root(root)
    store = open_or_create(root, made_spec())
    planned = []
    for start in range(0, rows, SHARD):
        names = [f"{number // 1000:04}/{number:08}.jpg" for number in range(start, min(start + SHARD, rows))]
        records = tuple(ImageRecord(f"default/{name}", size, 1, PHOTO[1], PHOTO[0]) for name in names)
        shard = Shard(schema.shard_name(0, len(planned)), LABEL, records)
        planned.append(PlannedShard(shard, ("add",) * len(records)))
        for name in names:
            place = photos / name
            if not place.parent.exists():
                place.parent.mkdir()
                shutil.copyfile(first, place.parent / "photo.jpg")  # a file may not have more than 65,000 names
            os.link(place.parent / "photo.jpg", place)
    profile = NumericsProfile(1, 1, "cpu", "made up", "none")
    tables = (one.table() for one in planned)
    without = (rejected_table([]), removed_table([]))
    add_generation(store, tables, *without, {"default": str(photos)}, profile, TeacherRequest("made up"))
    context = CommitContext(store.fingerprint, "disparity", "", "0" * 64)
    for number, one in enumerate(planned):
        count = len(one.shard.images)
        code_NHW = np.clip(random.normal(random.uniform(40, 200, (count, 1, 1)), 12, (count, *LABEL)), 1, 255)
        failed_N = (np.arange(count) + number * SHARD) % FAILED == FAILED - 1
        code_NHW = np.where(failed_N[:, None, None], 0, code_NHW).astype(np.uint8)
        depth_NHW = np.where(code_NHW > 0, random.uniform(0.1, 9, code_NHW.shape), 0).astype(np.float16)
        columns = {
            "depth": depth_NHW,
            "reliability": code_NHW,
            "histogram": np.stack([np.bincount(code.ravel(), minlength=256) for code in code_NHW]).astype(np.uint32),
            "id": np.array([image.id for image in one.shard.images], object),
            "status": failed_N.astype(np.uint8),
            "reason": np.array(["image file is truncated" if failed else "" for failed in failed_N], object),
            "source_height": np.full(count, PHOTO[0], np.int32),
            "source_width": np.full(count, PHOTO[1], np.int32),
            "orientation": np.ones(count, np.uint8),
            "focal_px": np.zeros(count, np.float32),
            "content_sha256": np.array([digest] * count, object),
        }
        assert commit_shard(store.root, one.shard, ShardArrays(columns), context)
    opened = open_store(path)
    write_index(opened)
    index = pq.read_table(path / schema.INDEX)
    for name in COLUMNS:
        values = pa.array(random.gamma(2.0, 0.3, len(index)), pa.float32())
        index = index.set_column(index.schema.get_field_index(name), index.schema.field(name), values)
    pq.write_table(index, path / schema.INDEX, compression="zstd")
    data = (path / schema.INDEX).read_bytes()
    record = unseal((path / schema.INDEX_RECORD).read_bytes(), schema.INDEX_RECORD)
    record |= {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    (path / schema.INDEX_RECORD).write_bytes(seal({name: record[name] for name in ("snapshot", "sha256", "bytes")}))
    return path


def write_report(store: Path, out: Path) -> dict[str, Any]:
    """The report in a process of its own: its summary, seconds and peak memory from the start of the process."""
    command = [sys.executable, __file__, "--write", str(store), str(out)]
    return dict(json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout))


def open_page(page: Path) -> dict[str, list[float]] | None:
    """Seconds, in each of :data:`TRIES` tries, until a browser shows the gallery, until it has answered a search typed
    there, and until it shows an image, all from nothing; and until it has sorted the gallery. None where there is no
    browser."""
    chromium = shutil.which("chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return None
    if chromium is None:
        return None
    found: dict[str, list[float]] = {}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for _ in range(TRIES):
            opened = browser.new_context().new_page()  # with a cache of its own
            start = time.perf_counter()

            def took(what: str, since: float) -> None:
                found.setdefault(what, []).append(time.perf_counter() - since)

            opened.goto(page.absolute().as_uri())
            tiles = opened.locator("#cards button.tile")
            tiles.first.wait_for()
            took("the gallery is there", start)
            name = str(tiles.last.locator("b").text_content())
            opened.locator("#tool-find").fill(name)
            opened.locator("#found", has_text="1 to 1 of 1").wait_for()
            assert tiles.first.locator("b").text_content() == name
            took("a search is answered", start)
            tiles.first.click()
            opened.locator("#masked:has-text('left out')").wait_for()
            took("an image is open", start)
            opened.keyboard.press("Escape")
            opened.locator("#tool-find").fill("")
            start = time.perf_counter()
            opened.locator("#order").select_option("sharpness")
            opened.locator("#cards .about", has_text="sharpness").first.wait_for()
            took("the gallery is sorted", start)
            opened.context.close()
        browser.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=float, default=1e5)
    parser.add_argument("--tmp", type=Path, default=Path(tempfile.gettempdir()), help="where the store is made")
    parser.add_argument("--write", nargs=2, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.write:
        from scale import peak_mib

        import depthsieve

        start = time.perf_counter()
        summary = depthsieve.report_labels(*options.write, progress=False)
        found = {"shown": summary.shown, "images": summary.images, "bytes": summary.bytes}
        print(json.dumps(found | {"seconds": time.perf_counter() - start, "peak_mib": peak_mib()}))
        return
    with tempfile.TemporaryDirectory(prefix="report-", dir=options.tmp) as folder:
        start = time.perf_counter()
        store = make_store(Path(folder), int(options.rows))
        print(f"made {int(options.rows):,} rows in {time.perf_counter() - start:.0f} s", flush=True)
        done = write_report(store, Path(folder) / "out")
        print(
            f"report of {done['images']:,} labels, {done['shown']} shown: {done['seconds']:.1f} s, "
            f"{done['peak_mib']:,.0f} MiB, {done['bytes'] / 1e6:.1f} MB"
        )
        seconds = open_page(Path(folder) / "out" / "index.html")
        for what, tries in (seconds or {}).items():
            print(f"in a browser, until {what}: {np.median(tries):.2f} s ({min(tries):.2f} to {max(tries):.2f} s)")


if __name__ == "__main__":
    main()
