"""What curation finds of planted faults, and what it costs.

    python benchmarks/curation.py                             # 300 images, and the photos where there are any
    python benchmarks/curation.py --photos photos/ --work w/  # keeps images, store and a picture of what went in w/
    python benchmarks/curation.py --seed 1                    # another set, on which no limit was chosen

Prints three tables in Markdown: recall and precision of each cut on images with planted faults (benchmarks/planted.py),
labelled with the embedded teacher; near-duplicates at several similarities; and the seconds of ``--where`` over a
million made-up rows.
"""

import argparse
import contextlib
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageDraw, ImageFont
from planted import COPIES, Planted, make_planted

import depthsieve
from depthsieve.curation.curating import CurateSummary
from depthsieve.curation.where import where
from depthsieve.features import COLUMNS
from depthsieve.store.index import SCHEMA

FAULTS = {"max-dark": ("black",), "min-detail": ("flat",), "min-sharpness": ("blurred",), "max-text": ("text",)}
SIMILARITIES = (0.80, 0.85, 0.90, 0.95)
EXPRESSIONS = (
    "sharpness > 0.55",
    "reliability > 60 AND sky < 0.5 AND source <> 'default'",
    "id LIKE '%/street/%' OR (short_side >= 768 AND flatness < 0.9)",
    "regexp_matches(id, '[0-9a-f]{4}7.*harbour') AND NOT text > 2.85",
    "width / height BETWEEN 1.2 AND 2 AND colourfulness + 10 * detail > 60",
)


def cuts_table(store: Path, subset: Path, planted: list[Planted]) -> None:
    """Each of the cuts of ``--faulty``: of what it drops and was still there, how much is what it is for."""
    kind_of = {f"default/{one.name}": one.kind for one in planted}
    depthsieve.curate(store, subset, progress=False, faulty=True)
    rows = pq.read_table(subset).to_pylist()
    print("\n| cut | for | planted | dropped | recall | precision |\n| --- | --- | --- | --- | --- | --- |")
    for cut, kinds in FAULTS.items():
        dropped = [kind_of[row["id"]] for row in rows if row["step"].startswith(cut)]
        wanted = [one for one in planted if one.kind in kinds]
        right = sum(kind in kinds for kind in dropped)
        told = f"| `--{cut}` | {', '.join(kinds)} | {len(wanted)} | {len(dropped)} "
        print(f"{told}| {right / len(wanted):.3f} | {right / max(len(dropped), 1):.3f} |")
    faults = {kind for kinds in FAULTS.values() for kind in kinds}
    gone = [kind_of[row["id"]] for row in rows if not row["keep"]]
    right, planted_faults = sum(kind in faults for kind in gone), sum(one.kind in faults for one in planted)
    told = f"| all of `--faulty` | | {planted_faults} | {len(gone)} "
    print(f"{told}| {right / planted_faults:.3f} | {right / len(gone):.3f} |")


def duplicates_table(store: Path, subset: Path, planted: list[Planted]) -> None:
    """After the cuts: of pairs (one that went, the one that stays for it), how many are of one origin; of copies and
    originals that need not both stay, how many went. A group of n images of one origin is n - 1 to find."""
    origin = {f"default/{one.name}": one.of or one.name for one in planted}
    kind_of = {f"default/{one.name}": one.kind for one in planted}
    print("\n| similarity | to find | dropped | recall | precision |", *(f" {kind} |" for kind in COPIES), sep="")
    print("| --- " * (5 + len(COPIES)) + "|")
    depthsieve.curate(store, subset, progress=False, faulty=True)
    left = [row["id"] for row in pq.read_table(subset).to_pylist() if row["keep"]]
    groups: dict[str, list[str]] = {}
    for image in left:
        groups.setdefault(origin[image], []).append(image)
    to_find = sum(len(group) - 1 for group in groups.values())
    for similarity in SIMILARITIES:
        depthsieve.curate(store, subset, progress=False, faulty=True, near_duplicates=similarity)
        rows = [row for row in pq.read_table(subset).to_pylist() if row["step"].startswith("near-dup")]
        right = [row for row in rows if origin[row["reason"].split()[2]] == origin[row["id"]]]
        gone = {row["id"] for row in right}
        shares = []
        for kind in COPIES:  # a copy is found if it, or all that it is a copy of and with, went
            copies = [image for image in left if kind_of[image] == kind and len(groups[origin[image]]) > 1]
            found = [image for image in copies if image in gone or set(groups[origin[image]]) - {image} <= gone]
            shares.append(f"{len(found) / max(len(copies), 1):.3f}")
        told = f"| {similarity:.2f} | {to_find} | {len(rows)} | {len(right) / to_find:.3f} "
        print(f"{told}| {len(right) / max(len(rows), 1):.3f} | {' | '.join(shares)} |")


def where_table(rows: int) -> None:
    """Expressions over made-up rows in memory."""
    table = made_rows(rows)
    print(f"\n| `--where` over {rows:,} rows | seconds | kept |\n| --- | --- | --- |")
    for expression in EXPRESSIONS:
        start = time.perf_counter()
        kept = where(table, expression)
        print(f"| `{expression}` | {time.perf_counter() - start:.2f} | {kept.mean():.1%} |")


def made_rows(rows: int) -> pa.Table:
    """An index of made-up images, with the columns that curation adds."""
    random = np.random.default_rng(0)
    words = np.array(["harbour", "street", "living-room", "mountain"])[random.integers(0, 4, rows)]
    ids = [f"s{number % 3}/{word}/{number:016x}-{word}.jpg" for number, word in enumerate(words)]
    columns: dict[str, Any] = {"id": ids, "status": ["labelled"] * rows, "reason": pa.nulls(rows, pa.string())}
    columns |= {"shard": [f"0000-{number // 256:06d}" for number in range(rows)], "row": np.arange(rows) % 256}
    for field in SCHEMA:
        if field.name in columns:
            continue
        if field.name in COLUMNS:
            columns[field.name] = random.gamma(2.0, 0.3 if field.name not in ("reliability", "detail") else 20, rows)
        elif field.name == "phash":
            columns[field.name] = random.integers(0, 1 << 63, rows, dtype=np.uint64)
        else:
            columns[field.name] = random.integers(1, 100 if field.name == "orientation" else 2000, rows)
    table = pa.table({field.name: pa.array(columns[field.name]).cast(field.type) for field in SCHEMA})
    table = table.append_column("source", pa.array([one.split("/")[0] for one in ids]))
    table = table.append_column("short_side", table["height"])
    return table.append_column("unreliable", pa.array(random.random(rows), pa.float32()))


def picture(folder: Path, subset: Path, path: Path, each: int = 8) -> None:
    """A row of small images for each step that dropped some, and one of those that stay."""
    rows = pq.read_table(subset).to_pylist()
    steps: dict[str, list[str]] = {}
    for row in rows:
        steps.setdefault(row["step"] or "kept", []).append(row["id"].partition("/")[2])
    width, height = 160, 120
    sheet = Image.new("RGB", (each * (width + 6) + 6, len(steps) * (height + 28) + 6), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for number, (step, names) in enumerate(steps.items()):
        top = 6 + number * (height + 28)
        draw.text((6, top), f"{step}: {len(names)} images", "black", font)
        chosen = names[:: max(1, len(names) // each)][:each]
        for column, name in enumerate(chosen):
            with Image.open(folder / name) as image:
                small = image.convert("RGB")
                small.thumbnail((width, height))
                sheet.paste(small, (6 + column * (width + 6), top + 22))
    sheet.save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="folder of real photos that are good")
    parser.add_argument("--work", type=Path, help="where images and store are kept; a store there is used again")
    parser.add_argument("--seed", type=int, default=0, help="another set; 0 is the one that --faulty was chosen on")
    parser.add_argument("--rows", type=float, default=1e6)
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        work = options.work or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="curation-")))
        work.mkdir(parents=True, exist_ok=True)
        print("making and labelling the images", file=sys.stderr)
        planted = make_planted(work / "images", options.photos, options.seed)
        depthsieve.label(work / "images", work / "labels", teacher="tiny", progress=False)
        store, subset = work / "labels", work / "subset.parquet"
        cuts_table(store, subset, planted)
        duplicates_table(store, subset, planted)
        done: CurateSummary = depthsieve.curate(store, subset, progress=False, faulty=True, near_duplicates=0.9)
        print(f"\n{done.kept} of {done.images} images kept in {done.seconds:.1f} s, {os.cpu_count()} cores")
        picture(work / "images", subset, work / "curation.png")
        where_table(int(options.rows))


if __name__ == "__main__":
    main()
