"""How labels are packed: a choice for each store, that everything written into it follows."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import zarr
from labelled import decided_bytes, job_of, unlabelled_copy, write_photos
from light import NAME

import depthsieve
from depthsieve.core.encodings import EARLIER_ENCODINGS, ENCODINGS, EncodingName
from depthsieve.core.errors import StoreMismatch, UsageError
from depthsieve.jobs.verify.repair import verify
from depthsieve.labelling.batch import LabelWork
from depthsieve.labelling.isolation import label_isolated
from depthsieve.labelling.shard import label_spec
from depthsieve.planning.options import LabelOptions
from depthsieve.storage import open_root
from depthsieve.store import Store, open_store
from depthsieve.store.create import open_or_create
from depthsieve.teachers import load_teacher
from depthsieve_cli.main import main

SETTINGS: dict[str, Any] = {"batch_size": 2, "threads": 1, "shard_size": 3, "progress": False}
(EARLIER,) = EARLIER_ENCODINGS
PACKED = {"fast": ("lz4hc", 5), "small": ("zstd", 9), "earlier": ("zstd", 3)}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, light: str) -> Path:
    """Photos, and a store in each encoding, with kept signals and a layer of reliability."""
    folder = tmp_path_factory.mktemp("encoding")
    write_photos(folder / "photos", 4)
    spec = label_spec(LabelWork(load_teacher(light), ("flip",)), EARLIER.text)
    open_or_create(open_root(folder / "earlier"), spec)
    for name in PACKED:
        label(folder, name, encoding=None if name == "earlier" else name)
        assert depthsieve.recalibrate(folder / name, name="again", progress=False).shards_now == 2
    return folder


def label(folder: Path, store: str, **options: Any) -> None:
    shared = {"teacher": NAME, "keep_signals": True, **SETTINGS}
    depthsieve.label(folder / "photos", folder / store, **shared | options)


def codecs_of(store: Path) -> dict[str, set[tuple[str, int, str]]]:
    """Codec, level and shuffle of the maps of labels and layers, by where they lie."""
    found: dict[str, set[tuple[str, int, str]]] = {}
    for path in store.rglob("zarr.json"):
        body = json.loads(path.read_bytes())
        if body["node_type"] == "array" and body["dimension_names"][1:] == ["y", "x"]:
            (inner,) = (codec["configuration"]["codecs"] for codec in body["codecs"])
            assert [codec["name"] for codec in inner] == ["bytes", "blosc", "crc32c"]
            blosc = inner[1]["configuration"]
            place = path.relative_to(store).parts[:2][-1]
            found.setdefault(place, set()).add((blosc["cname"], blosc["clevel"], blosc["shuffle"]))
    return found


@pytest.mark.parametrize("name", PACKED)
def test_every_map_of_a_store_is_packed_as_its_label_spec_says(made: Path, name: str) -> None:
    packed = {(*PACKED[name], "shuffle")}
    assert codecs_of(made / name) == {"shards": packed, "signals": packed, "again": packed}
    codec, level, shuffle = *PACKED[name], "shuffle"
    assert open_store(made / name).spec.encoding == f"float16+uint8,blosc-{codec}{level}-{shuffle},crc32c"


def test_new_stores_are_fast_and_the_names_are_those_of_the_options(made: Path, tmp_path: Path) -> None:
    depthsieve.label(made / "photos", tmp_path / "plain", teacher=NAME, keep_signals=True, **SETTINGS)
    shutil.copytree(made / "fast", tmp_path / "fast")
    shutil.rmtree(tmp_path / "fast" / "layers" / "again")
    assert decided_bytes(tmp_path / "plain") == decided_bytes(tmp_path / "fast")
    assert get_args(EncodingName) == tuple(ENCODINGS)


def test_labels_are_the_same_in_every_encoding_and_small_is_smaller(made: Path) -> None:
    content, size = [], {}
    for name in PACKED:
        records = [json.loads(path.read_bytes()) for path in sorted((made / name).glob("commits/0*.json"))]
        layers = [json.loads(path.read_bytes()) for path in sorted((made / name).glob("layers/*/commits/0*.json"))]
        content.append([one["content_sha256"] for one in records + layers])
        size[name] = sum(path.stat().st_size for path in (made / name).glob("labels.zarr/shards/*/*/c/**/*"))
    assert content[0] == content[1] == content[2] and len(content[0]) == 8
    assert size["small"] < size["fast"]


def test_a_store_goes_on_in_its_own_encoding_and_refuses_another(made: Path, tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", 5)
    for name, other in (("earlier", "fast"), ("small", "fast"), ("fast", "small")):
        shutil.copytree(made / name, tmp_path / name)
        with pytest.raises(StoreMismatch, match=rf"encoding: .*{PACKED[name][0]}.* in the store, .* now"):
            label(tmp_path, name, teacher=NAME, encoding=other)
        label(tmp_path, name, teacher=NAME, moved=True)
        assert len(open_store(tmp_path / name)) == 5
        assert codecs_of(tmp_path / name)["shards"] == {(*PACKED[name], "shuffle")}


def test_isolated_and_repaired_shards_have_the_same_bytes(made: Path, tmp_path: Path) -> None:
    name = "small"
    copy = unlabelled_copy(made / name, tmp_path / "copy")
    job = replace(job_of(copy, made / "photos", Path(NAME)), keep_signals=True)
    assert label_isolated(job, "0000-000000").error is None
    label(made, str(copy))
    assert depthsieve.recalibrate(copy, name="again", progress=False).shards_now == 2
    assert decided_bytes(copy) == decided_bytes(made / name)
    (depth,) = copy.glob("labels.zarr/shards/0000-000000-*/depth/c/0/0/0")
    depth.write_bytes(depth.read_bytes()[:-9])
    (copy / "commits" / "0000-000001.json").write_text("{}")
    report = verify(copy, repair=True, progress=False)
    assert report.sound and not report.left and len(report.findings) > 1
    assert decided_bytes(copy) == decided_bytes(made / name)


def test_a_plan_counts_the_bytes_of_its_encoding(made: Path, tmp_path: Path) -> None:
    shared = {"teacher": NAME, **SETTINGS}
    plans = {
        name: depthsieve.plan(made / "photos", tmp_path / "new", trial=False, encoding=name, **shared).bytes
        for name in (*ENCODINGS, None)
    }
    assert plans["small"] == pytest.approx(plans["fast"] * 1.9 / 2.2, abs=1) and plans[None] == plans["fast"]
    standing = unlabelled_copy(made / "small", tmp_path / "small")
    assert depthsieve.plan(made / "photos", standing, trial=False, **shared).bytes == plans["small"]
    tried = [depthsieve.plan(made / "photos", tmp_path / "new", encoding=name, **shared) for name in ENCODINGS]
    assert tried[0].tried == tried[1].tried > 0
    assert tried[1].bytes < tried[0].bytes


def test_the_command_line_has_the_choice(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["label", str(made / "photos"), str(tmp_path / "new"), "--teacher", NAME]
    monkeypatch.setattr(sys, "argv", ["depthsieve", *command, "--batch-size", "2", "--encoding", "small", "--json"])
    with pytest.raises(SystemExit) as exit_info:
        main()
    assert exit_info.value.code == 0
    assert open_store(tmp_path / "new").spec.encoding == ENCODINGS["small"].text


def test_what_cannot_be_meant_is_refused() -> None:
    with pytest.raises(UsageError, match="encoding must be one of fast, small, not 'tiny'"):
        LabelOptions(encoding="tiny")  # type: ignore[arg-type]


def test_an_encoding_of_a_later_release_is_read_and_not_written(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "fast", tmp_path / "store")
    later = replace(open_store(tmp_path / "store").spec, encoding="float16+uint8,pcodec-8,crc32c")
    shutil.rmtree(tmp_path / "store" / "labels.zarr")
    store: Store = open_or_create(open_root(tmp_path / "later"), later)
    assert zarr.open_group(store.path / "labels.zarr", mode="r").attrs["label_spec"]["encoding"] == later.encoding
    with pytest.raises(StoreMismatch, match=r"pcodec-8.*cannot write; update depthsieve"):
        label(made, str(tmp_path / "later"))
