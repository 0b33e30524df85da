"""docs/store_format.md: its snippets run as they stand, with none of our code, and what it lists is what is written."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import zarr
from storemaker import Picture, make_store

from depthsieve.core.tables import PLAN_SCHEMA, REJECTED_SCHEMA
from depthsieve.reliability.masking import threshold_code
from depthsieve.store import Store, schema
from depthsieve.store.create import write_index
from depthsieve.store.index import SCHEMA

TEXT = (Path(__file__).parents[2] / "docs" / "store_format.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
GUARD = "import sys\nsys.modules['depthsieve'] = None  # importing it now raises\n"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Two shards, one failed image, one refused file."""
    pictures = [
        Picture("near.png", (28, 42), (14, 21)),
        Picture("broken.png", (28, 42), (14, 21), failed=True),
        Picture("tall.png", (40, 30), (20, 15)),
    ]
    made = make_store(tmp_path_factory.mktemp("format"), pictures, rejected=["empty.png"])
    write_index(made)
    return made


def test_the_snippets_run_without_our_code(store: Store) -> None:
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", GUARD + "\n".join(SNIPPETS)],
        cwd=store.path.parent,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == "disparity"
    valid = [f"{(store.label(image).reliability > 0).mean():.0%} valid" for image in store.images]
    assert store.images == ["default/near.png", "default/tall.png"]
    assert lines[1:3] == [f"default/near.png (14, 21) {valid[0]}", f"default/tall.png (20, 15) {valid[1]}"]
    assert lines[3] == "default/near.png float16 (14, 21) of a photo of (28, 42)"
    assert lines[4].startswith("('image', 'y', 'x') disparity: inverse depth")
    share = float(lines[5].partition("%")[0])
    assert 5 < share <= 10


def test_the_snippets_mask_is_ours(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(store.path.parent)
    names: dict[str, object] = {}
    exec("\n".join(SNIPPETS), names)
    assert names["t"] == threshold_code(store.reader("0000-000000").column("histogram")[0], 0.10) > 1


def test_the_integrity_snippet_finds_one_wrong_byte(store: Store, tmp_path: Path) -> None:
    copy = tmp_path / "labels"
    shutil.copytree(store.path, copy)
    (chunk,) = (copy / "labels.zarr" / "shards").glob("0000-000000-*/reliability/c/0/0/0")
    data = bytearray(chunk.read_bytes())
    data[5] ^= 1
    chunk.write_bytes(data)
    setup = f"import json\nfrom pathlib import Path\nstore = Path({str(copy)!r})\n"
    setup += "commit = json.loads((store / 'commits' / '0000-000000.json').read_text())\n"
    setup += "group = store / 'labels.zarr' / 'shards' / commit['group']\n"
    (check,) = (snippet for snippet in SNIPPETS if "hashlib" in snippet)
    with pytest.raises(AssertionError, match="reliability/c/0/0/0"):
        exec(setup + check, {})


def test_the_table_of_arrays_is_what_is_written(store: Store) -> None:
    rows = re.findall(r"^\| (`.*?) \| (\w+) \[(.*?)\] \|", TEXT, re.MULTILINE)
    documented = {
        name: (dtype, tuple(axis.split()[0] for axis in axes.split(", ")))
        for names, dtype, axes in rows
        for name in re.findall(r"`(\w+)`", names)
    }
    written = zarr.open_group(store.path / "labels.zarr" / "shards" / store.commit_record("0000-000000")["group"])
    found = {
        name: ("string" if array.dtype.kind == "T" else str(array.dtype), array.metadata.dimension_names)
        for name, array in written.arrays()
    }
    assert documented == found
    assert set(found) == {spec.name for spec in (*schema.MAPS, *schema.ROWS)}


def codecs_in(codecs: list[dict[str, Any]]) -> set[str]:
    """Names of an array's codecs, those within a shard too."""
    inner = [one.get("configuration", {}).get(key, []) for one in codecs for key in ("codecs", "index_codecs")]
    return {one["name"] for one in codecs}.union(*map(codecs_in, inner))


def test_numbers_have_core_codecs_and_strings_an_extension(store: Store) -> None:
    group = store.path / "labels.zarr" / "shards" / store.commit_record("0000-000000")["group"]
    documents = {path.parent.name: json.loads(path.read_text()) for path in group.glob("*/zarr.json")}
    strings = {name for name, document in documents.items() if document["data_type"] == "string"}
    of_numbers, of_strings = (
        set().union(
            *(codecs_in(document["codecs"]) for name, document in documents.items() if (name in strings) == is_string)
        )
        for is_string in (False, True)
    )
    numbers, _, rest = TEXT.partition("**Codecs.**")[2].partition("\n\n")[0].partition("Arrays of strings")
    assert set(re.findall(r"`([\w-]+)`", numbers)) == of_numbers
    assert set(re.findall(r"`(\w+)`", rest.partition(")")[0])) == strings
    assert of_strings == {"vlen-utf8", "crc32c"} and "`vlen-utf8`" in rest


@pytest.mark.parametrize(("start", "columns"), [("plan/generation-NNNN", PLAN_SCHEMA), ("index.parquet", SCHEMA)])
def test_the_columns_are_those_documented(start: str, columns: pa.Schema) -> None:
    paragraph = TEXT.partition(f"**`{start}")[2].partition("\n\n")[0].partition("Rejects:")[0].partition(". It is")[0]
    assert re.findall(r"`(\w+)`", paragraph) == columns.names


def test_the_columns_of_rejects_and_the_records_fields(store: Store) -> None:
    assert re.findall(r"`(\w+)`", TEXT.partition("Rejects:")[2].partition("\n\n")[0]) == REJECTED_SCHEMA.names
    for field in set(store.commit_record("0000-000000")) - {"digest", "format_version"}:
        assert f"`{field}`" in TEXT.partition("**`commits/<shard>.json`**")[2].partition("\n\n")[0]
    attributes = zarr.open_group(store.path / "labels.zarr", mode="r").attrs
    assert set(attributes) == {"format", "format_version", "label_spec", "fingerprint", "digest"}
    assert (attributes["format"], attributes["format_version"]) == (schema.FORMAT, schema.FORMAT_VERSION)
    assert f'`format` ("{schema.FORMAT}"), `format_version` ({schema.FORMAT_VERSION})' in TEXT
