"""Layers as they lie in a store: plain Zarr, records, documents, and the kinds they may be of."""

import hashlib
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import xarray
import zarr
from commandline import command
from labelled import decided_bytes
from layered import (
    NAME,
    SETTINGS,
    SIGNAL_NAMES,
    WEIGHTS,
    group_of,
    labels_of,
    records,
)

import depthsieve
from depthsieve.core.errors import (
    StoreDamaged,
)
from depthsieve.jobs.verify.repair import verify
from depthsieve.storage import open_root
from depthsieve.store import open_store
from depthsieve.store.layer_kinds import SIGNALS, LayerSpec, spec_in


def test_a_layer_is_plain_zarr_and_its_arrays_are_encoded_as_labels_are(made: Path) -> None:
    store = made / "store"
    root = zarr.open_group(store / "layers" / NAME, mode="r")
    assert root.attrs["calibration"]["weights"]["disparity"]["edges+flip+lowres"] == WEIGHTS
    assert (root.attrs["calibration"]["version"], root.attrs["calibration"]["transferred"]) == ("9", True)
    assert root.attrs["fingerprint"] == open_store(store).fingerprint
    (shard_id, record), *_ = records(store, NAME).items()
    codes = root["shards"][record["group"]]["reliability"]
    stored = labels_of(store, shard_id)["reliability"]
    assert codes.metadata.codecs == stored.metadata.codecs and codes.attrs.asdict() == stored.attrs.asdict()
    for name, sums in (("reliability", NAME), ("flip", SIGNALS)):
        dataset = xarray.open_zarr(group_of(store, sums, shard_id), consolidated=False, chunks=None)
        assert dataset[name].dims == ("image", "y", "x")
    group = group_of(store, NAME, shard_id)
    listed = {name: (entry["sha256"], entry["bytes"]) for name, entry in record["files"].items()}
    assert listed == {
        path.relative_to(group).as_posix(): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_size)
        for path in group.rglob("*")
        if path.is_file()
    }


def test_the_documented_snippet_reads_every_layer(made: Path) -> None:
    text = (Path(__file__).parents[3] / "docs" / "store_format.md").read_text()
    (snippet,) = re.findall(r"```python\n(for place in.*?)```", text, re.DOTALL)
    code = "import sys, json, zarr\nsys.modules['depthsieve'] = None\nfrom pathlib import Path\nstore = Path('store')\n"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code + snippet], cwd=made, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    shards = [f"0000-00000{number}" for number in range(3)]
    assert done.stdout.splitlines() == [
        *(f"reliability {NAME} {shard} ['histogram', 'reliability']" for shard in shards),
        *(f"features features {shard} ['embedding', 'phash', 'values']" for shard in shards),
        *(f"signals signals {shard} {list(SIGNAL_NAMES)}" for shard in shards),
    ]


def test_fields_of_records_and_documents_are_those_documented(made: Path) -> None:
    text = (Path(__file__).parents[3] / "docs" / "store_format.md").read_text()
    of_layer = text.partition("**The layer's attributes**")[2].partition("- **A layer's record")[0]
    of_shard = text.partition("**A layer's record of a shard**")[2].partition("\n\n")[0]
    attributes = zarr.open_group(made / "store" / "layers" / NAME, mode="r").attrs.asdict()
    for field in (set(attributes) | set(attributes["calibration"])) - {"digest"}:
        assert f"`{field}`" in of_layer, field
    for field in set(records(made / "store", NAME)["0000-000000"]) - {"digest"}:
        assert f"`{field}`" in of_shard, field


def test_in_an_object_store_the_bytes_are_a_folders(s3: Any, made: Path) -> None:
    """Labels, signals, a layer, reading and verifying it, and what one flipped bit does."""
    url = f"s3://{s3.new_bucket()}/labels"
    label = {**SETTINGS, "teacher": str(made / "teacher"), "keep_signals": True}
    depthsieve.label(made / "photos", url, **label)
    depthsieve.recalibrate(url, calibration=made / "nine.json", progress=False)
    root = open_root(url)
    keys = [entry.key for part in ("labels.zarr", "layers", "commits") for entry in root.entries(part)]
    expected = {name: sums for name, sums in decided_bytes(made / "store").items() if not name.startswith("plan/")}
    assert {key: hashlib.sha256(root.read(key)).hexdigest() for key in keys} == expected
    here, there = open_store(made / "store", reliability=NAME), open_store(url, reliability=NAME)
    for image in here.images:
        assert (there.label(image).reliability == here.label(image).reliability).all()
    (key,) = (key for key in keys if key.startswith(f"layers/{NAME}/shards/0000-000000-") and "/reliability/c" in key)
    root.write(key, bytes([root.read(key)[0] ^ 1]) + root.read(key)[1:])
    report = verify(url, progress=False)
    assert [finding.key for finding in report.findings] == [key]
    assert [(out.layer, out.shard) for out in verify(url, repair=True, progress=False).taken_out] == [
        (NAME, "0000-000000")
    ]
    assert depthsieve.recalibrate(url, name=NAME, progress=False).shards_now == 1
    assert {key: hashlib.sha256(root.read(key)).hexdigest() for key in keys} == expected


def test_status_lists_layers(made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    command(monkeypatch, "status", made / "store")
    out = capsys.readouterr().out
    assert f"Layer {NAME} (reliability, transferred): 3 of 3 committed shards.\n" in out
    assert "Layer signals (signals): 3 of 3 committed shards.\n" in out


@pytest.mark.parametrize(
    ("name", "kind", "detail"),
    [
        (SIGNALS, "reliability", {"name": "n", "digest": "d", "transferred": False}),
        ("mine", SIGNALS, None),
        ("mine", "reliability", {"name": "n", "digest": "d"}),
    ],
)
def test_a_layer_whose_name_and_kind_do_not_go_together_is_damage(
    name: str, kind: str, detail: dict[str, Any] | None
) -> None:
    document = LayerSpec(name, kind, "f", ("flip",), detail).document()
    with pytest.raises(StoreDamaged, match="here is not a readable record of a layer"):
        spec_in(document, "here")


def test_what_a_layer_says_is_read_back() -> None:
    detail = {"name": "n", "digest": "d", "transferred": False}
    for spec in (LayerSpec(SIGNALS, SIGNALS, "f", ("flip",)), LayerSpec("mine", "reliability", "f", (), detail)):
        assert spec_in(spec.document(), "here") == spec
