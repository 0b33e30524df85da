"""The one loop that fills layers, with a kind of layer that no release has: what a new kind takes, and what it gets."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from layered import change, check, records
from numpy.typing import NDArray

import depthsieve
from depthsieve.core.errors import RunError, StoreBusy, StoreMismatch
from depthsieve.core.stopping import Abandoned, Stop
from depthsieve.jobs.layers.backfill import Backfill, CommittedShard, Computed
from depthsieve.storage import open_root
from depthsieve.storage.local import LocalRoot
from depthsieve.store import open_store, schema
from depthsieve.store.arrays import ShardReader
from depthsieve.store.layer_kinds import KINDS, LayerKind, LayerSpec
from depthsieve.store.layers import Layer, find_layer
from depthsieve.store.leases import Leases
from depthsieve_cli.main import main

SHARDS = ["0000-000000", "0000-000001", "0000-000002"]
MEANS = LayerKind(
    arrays=lambda spec: (schema.ArraySpec("mean", "float32", ("image",)),),
    attributes=lambda name, spec: {"meaning": "mean of the label"},
    add_again="depthsieve means {store}",
    detail="means",
    needed=("of",),
)


@pytest.fixture(autouse=True)
def with_the_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kind is an entry of the table."""
    monkeypatch.setitem(KINDS, "means", MEANS)  # type: ignore[arg-type]


class Means(Backfill):
    """And a way to compute it: the mean depth of each label."""

    title = "means"

    def __init__(
        self,
        store: Path,
        of: str = "depth",
        before: Callable[[str], object] = lambda shard_id: None,
        stop: Stop | None = None,
    ) -> None:
        opened = open_store(store)
        super().__init__(opened, LayerSpec("means", "means", opened.fingerprint, detail={"of": of}), stop=stop)
        self.before = before

    def compute(self, layer: Layer, shard: CommittedShard) -> Computed:
        self.before(shard.id)
        mean_N = np.zeros(len(shard.shard.images), np.float32)
        for row in shard.labelled_rows():
            mean_N[row] = shard.labels.depth(row).mean()
        refused = {row: "too small" for row in shard.labelled_rows() if mean_N[row] < 0}
        return Computed({"mean": mean_N}, len(mean_N), refused)


def means_in(store: Path) -> dict[str, NDArray[Any]]:
    """What the layer holds, by shard."""
    opened = open_store(store)
    layer = find_layer(opened.root, "means", opened.fingerprint)
    assert layer is not None
    found = {}
    for shard_id in sorted(layer.shards()):
        folder = layer.folder_of(shard_id, opened.commit_record(shard_id)["content_sha256"])
        assert folder is not None
        found[shard_id] = ShardReader(opened.root, folder).column("mean")
    return found


def test_every_committed_shard_is_filled_once_from_its_labels(store: Path) -> None:
    filled = Means(store).run(progress=False)
    assert (filled.images, filled.shards, filled.shards_in_all, filled.errors) == (7, 3, 3, ())
    opened, found = open_store(store), means_in(store)
    assert list(found) == SHARDS
    for row in opened.index(features=False).to_pylist():
        mean = opened.label(row["id"]).depth.mean() if row["status"] == "labelled" else 0
        assert found[row["shard"]][row["row"]] == pytest.approx(mean)
    again = Means(store, before=lambda shard_id: pytest.fail("it was there")).run(progress=False)
    assert (again.images, again.shards, again.shards_in_all) == (0, 0, 3)
    assert {layer.name: (layer.kind, layer.shards) for layer in depthsieve.status(store).layers}["means"] == (
        "means",
        3,
    )


def test_verify_reads_it_and_a_repair_names_the_command_that_adds_it_again(
    store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Means(store).run(progress=False)
    before = check(store)
    assert before.findings == ()
    (file,) = store.glob("layers/means/shards/0000-000001-*/mean/c/0")
    change(file)
    (finding,) = check(store).findings
    assert (finding.key, finding.remedy) == (file.relative_to(store).as_posix(), "take out")
    for arguments, line in (
        ([], f"digest (--repair takes the shard out of the layer; `depthsieve means {store}` adds it again)\n"),
        (["--repair"], f"Layer means lost 1 shard (0000-000001); add them again: depthsieve means {store}\n"),
    ):
        monkeypatch.setattr("sys.argv", ["depthsieve", "verify", str(store), *arguments])
        with pytest.raises(SystemExit):
            main()
        assert line in capsys.readouterr().out
    assert sorted(records(store, "means")) == [SHARDS[0], SHARDS[2]]
    assert Means(store).run(progress=False).shards == 1
    after = check(store)
    assert (after.findings, after.files, after.bytes) == ((), before.files, before.bytes)


@pytest.mark.parametrize("fault", ["labels", "disk"])
def test_a_shard_that_cannot_be_done_is_named_and_costs_no_other(store: Path, fault: str) -> None:
    def fail(shard_id: str) -> None:
        if fault == "disk" and shard_id == SHARDS[1]:
            raise OSError(5, "Input/output error")

    if fault == "labels":
        (file,) = store.glob(f"labels.zarr/shards/{SHARDS[1]}-*/depth/c/0/0/0")
        file.unlink()
    filled = Means(store, before=fail).run(progress=False)
    (error,) = filled.errors
    assert error.startswith(f"shard {SHARDS[1]}: ")
    assert ("is missing" in error) == (fault == "labels") and ("Input/output error" in error) == (fault == "disk")
    assert (filled.shards, sorted(means_in(store))) == (2, [SHARDS[0], SHARDS[2]])


def test_what_cannot_be_written_ends_it_and_the_same_call_resumes(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create = LocalRoot.create

    def full(root: LocalRoot, key: str, data: bytes, lasting: bool = True) -> bool:
        if key == f"layers/means/commits/{SHARDS[1]}.json":
            raise OSError(28, "No space left on device")
        return create(root, key, data, lasting)

    with monkeypatch.context() as patched:
        patched.setattr(LocalRoot, "create", full)
        with pytest.raises(RunError, match=f"{store}: No space left on device"):
            Means(store).run(progress=False)
    assert list(means_in(store)) == SHARDS[:1]
    assert check(store).sound and not list(store.glob("leases/*"))
    filled = Means(store).run(progress=False)
    assert (filled.shards, filled.shards_in_all) == (2, 3)


@pytest.mark.parametrize("how", ["between shards", "within one"])
def test_a_stop_is_heard_and_what_is_committed_stays(store: Path, how: str) -> None:
    stop = Stop()

    def heard(shard_id: str) -> None:
        if shard_id == SHARDS[1]:
            stop.request()
            if how == "within one":
                raise Abandoned

    filled = Means(store, before=heard, stop=stop).run(progress=False)
    done = SHARDS[:2] if how == "between shards" else SHARDS[:1]
    assert (filled.stopped, filled.shards, list(means_in(store))) == (True, len(done), done)


def test_refused_images_are_named(store: Path) -> None:
    class Refusing(Means):
        def compute(self, layer: Layer, shard: CommittedShard) -> Computed:
            return Computed({"mean": np.zeros(len(shard.shard.images), np.float32)}, 0, {1: "no", 0: "never"})

    names = [[image.id for image in open_store(store).planned_shard(shard_id).images[:2]] for shard_id in SHARDS[:2]]
    refused = [(one.id, one.reason) for one in Refusing(store).run(progress=False).refused]
    assert refused[:4] == [(names[0][0], "never"), (names[0][1], "no"), (names[1][0], "never"), (names[1][1], "no")]


def test_a_layer_of_that_name_with_another_spec_or_in_other_hands_is_refused(store: Path) -> None:
    Means(store).run(progress=False)
    with pytest.raises(StoreMismatch, match="a layer 'means' that was made in another way"):
        Means(store, of="reliability").run(progress=False)
    with Leases(open_root(store)) as leases:
        leases.take("layer-means")
        with pytest.raises(StoreBusy, match=r"layer 'means' of .* is being written by"):
            Means(store).run(progress=False, leases=leases)


def test_features_wait_for_a_source_that_is_not_there(made: Path, store: Path) -> None:
    """They would be those of the labels alone, for good."""
    layer = store / "layers" / "features"
    for record in (layer / "commits").iterdir():
        record.unlink()
    away = made / "away"
    (made / "photos").rename(away)
    try:
        with pytest.raises(RunError, match=r"images of source 'default' are not at .*photos; is the disk there\?"):
            depthsieve.add_features(store, progress=False)
    finally:
        away.rename(made / "photos")
    assert not list((layer / "commits").iterdir())
    assert depthsieve.add_features(store, progress=False).shards == 3
