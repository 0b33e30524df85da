"""However batches are made (threads, workers, ranks, device, interruptions), the samples are the same."""

import gc
import itertools
import json
import multiprocessing
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from storemaker import Picture, made_label, make_store, pictures

from depthsieve.core.errors import LoaderError, UsageError
from depthsieve.training import Augment, BatchLoader, PseudoLabelDataset
from depthsieve.training.expand import expand
from depthsieve.training.reader import Reader

SHAPES = {(28, 42): 19, (42, 28): 12, (28, 28): 9}  # 40 images, and tails
VARIED = Augment(crop=20, flip=True, scale=(0.8, 1.5), jitter=(0.5, 0.5, 0.5, 0.2), blur_share=0.5)
Batch = dict[str, Any]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    make_store(folder, pictures(SHAPES), shard_size=8)
    return folder


def same(left: list[Batch], right: list[Batch]) -> None:
    assert [batch["id"] for batch in left] == [batch["id"] for batch in right]
    for a, b in zip(left, right, strict=True):
        assert a.keys() == b.keys()
        assert all(torch.equal(a[name], b[name]) and a[name].dtype == b[name].dtype for name in a if name != "id")


def our_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("depthsieve-loader")]


# --- threads and workers


@pytest.mark.parametrize("scope", ["image", "batch", "dataset"])
def test_threads_and_how_far_they_are_ahead_change_nothing(home: Path, scope: Any) -> None:
    dataset = PseudoLabelDataset(home / "labels", scope=scope, augment=VARIED)
    alone = list(dataset.loader(8, threads=1, prefetch=1))
    for threads, prefetch in ((1, 4), (2, 1), (5, 3), (None, None)):
        same(alone, list(dataset.loader(8, threads=threads, prefetch=prefetch)))
    if scope != "batch":
        items = {item["id"]: item for item in dataset}
        for batch in alone:
            rows = [{name: batch[name][place] for name in batch} for place in range(len(batch["id"]))]
            same(rows, [items[image_id] for image_id in batch["id"]])


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more than this machine has cores: that is the test
@pytest.mark.parametrize("method", ["fork", "forkserver"])  # spawn: see test_order.py
def test_workers_change_nothing(home: Path, method: str) -> None:
    dataset = PseudoLabelDataset(home / "labels", scope="batch", augment=VARIED)
    alone = list(dataset.loader(8))
    count = 4 if method == "fork" else 1
    same(alone, list(dataset.loader(8, num_workers=count, multiprocessing_context=method)))


def test_workers_may_be_forked_while_threads_are_at_work(home: Path) -> None:
    dataset = PseudoLabelDataset(home / "labels", augment=VARIED)
    expected = list(dataset.loader(4))
    busy = iter(dataset.loader(4, threads=3, prefetch=3))
    next(busy)
    same(expected, list(dataset.loader(4, num_workers=2, multiprocessing_context="fork")))
    same(expected[1:], list(busy))


def test_threads_share_one_reader(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Reader] = []

    class Slow(Reader):
        def __init__(self, *arguments: Any) -> None:
            time.sleep(0.05)  # long enough for all threads to come by
            super().__init__(*arguments)
            opened.append(self)

    monkeypatch.setattr("depthsieve.training.sample_set.Reader", Slow)
    assert len(list(PseudoLabelDataset(home / "labels", images=False).loader(8, threads=4))) == 7
    assert len(opened) == 1


def test_what_is_delivered_belongs_to_the_one_who_got_it(home: Path) -> None:
    loader = PseudoLabelDataset(home / "labels").loader(4)
    batches = list(loader)
    copies = [{name: value.clone() if name != "id" else value for name, value in batch.items()} for batch in batches]
    for _ in loader:
        pass
    same(batches, copies)


def test_threads_end_with_a_pass_and_with_the_one_that_follows_it(home: Path) -> None:
    loader = PseudoLabelDataset(home / "labels", images=False).loader(4, threads=2)
    for _ in loader:
        assert 0 < len(our_threads()) <= 2
    assert our_threads() == []
    older = iter(loader)
    next(older)
    newer = iter(loader)
    next(newer)
    assert len(our_threads()) <= 2
    with pytest.raises(LoaderError, match="newer pass"):
        next(older)
    newer.close()  # type: ignore[attr-defined]
    assert our_threads() == []


@pytest.mark.parametrize("whole", [True, False])
def test_workers_that_live_on_end_with_the_loader(home: Path, whole: bool) -> None:
    def train() -> int:
        loader = PseudoLabelDataset(home / "labels").loader(4, num_workers=2, persistent_workers=True)
        same(list(loader)[:1], list(PseudoLabelDataset(home / "labels").loader(4))[:1])
        for _ in loader:
            if not whole:
                break
        return len(multiprocessing.active_children())

    gc.disable()  # no garbage needs to be collected for it
    try:
        assert train() == 2
        assert not multiprocessing.active_children()
    finally:
        gc.enable()


def test_a_pass_needs_no_other_name_for_its_loader(home: Path) -> None:
    dataset = PseudoLabelDataset(home / "labels", augment=VARIED)
    same(list(dataset.loader(8)), list(iter(dataset.loader(8, num_workers=1, persistent_workers=True))))


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_comes_in_place_of_its_batch_and_the_next_pass_tries_again(tmp_path: Path, workers: int) -> None:
    make_store(tmp_path, pictures({(28, 28): 12}))
    loader = PseudoLabelDataset(tmp_path / "labels", crop=20).loader(2, num_workers=workers)
    expected = [batch["id"] for batch in loader]
    broken = tmp_path / "images" / expected[3][1].removeprefix("default/")
    data = broken.read_bytes()
    broken.unlink()
    loader.load_state_dict(loader.state_dict() | {"epoch": 0})
    found = []
    with pytest.raises(LoaderError, match=rf"{expected[3][1]}: its photo is gone"):
        for batch in loader:
            found.append(batch["id"])
    assert (found, loader.state_dict()["batch"]) == (expected[:3], 3)
    assert our_threads() == []
    broken.write_bytes(data)
    assert [batch["id"] for batch in loader] == expected[3:]


def test_an_error_of_a_histogram_comes_in_place_too(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = PseudoLabelDataset(home / "labels", images=False, crop=20, scope="batch")
    loader = dataset.loader(8, prefetch=3)
    samples, asked = dataset._samples, itertools.count()
    keys = samples.keys

    def breaks(*arguments: Any, **options: Any) -> Any:
        if next(asked) == 2:
            raise OSError("the disk is gone")
        return keys(*arguments, **options)

    monkeypatch.setattr(samples, "keys", breaks)
    batches = iter(loader)
    next(batches), next(batches)
    with pytest.raises(OSError, match="the disk is gone"):
        next(batches)


# --- device


@pytest.mark.parametrize("options", [{}, {"num_workers": 1}])
@pytest.mark.parametrize("augment", [VARIED, Augment(), Augment(crop=(28, 28))])
def test_on_a_device_samples_are_the_same_and_less_is_shipped(
    home: Path, options: dict[str, Any], augment: Augment, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped: list[Batch] = []

    def spy(batch: Batch, device: torch.device) -> Batch:
        shipped.append(batch)
        return expand(batch, device)

    monkeypatch.setattr("depthsieve.training.batches.expand", spy)
    dataset = PseudoLabelDataset(home / "labels", scope="batch", drop=0.3, augment=augment)
    plain = dataset.loader(4, **options)
    on_device = dataset.loader(4, device="cpu", **options)
    same(list(plain), list(on_device))
    assert plain.delivered_share == on_device.delivered_share > 0
    types = {name: value.dtype for name, value in shipped[0].items() if name != "id"}
    assert types == {
        "image": torch.uint8,
        "depth": torch.float16,
        "reliability": torch.uint8,
        "threshold": torch.uint8,
    }
    assert len(shipped) == len(plain)


def test_pixels_that_are_invalid_are_not_trained_on_where_nothing_is_masked(home: Path) -> None:
    for batch in PseudoLabelDataset(home / "labels", images=False, drop=0).loader(4, device="cpu"):
        assert torch.equal(batch["mask"], batch["reliability"] > 0)
        assert not batch["mask"].all()


# --- the share that is masked


@pytest.mark.parametrize("workers", [0, 1])
def test_the_delivered_share_is_that_of_the_crops(home: Path, workers: int) -> None:
    dataset = PseudoLabelDataset(home / "labels", images=False, drop=0.2, scope="dataset", crop=20)
    loader = dataset.loader(4, num_workers=workers, rank=1, world_size=2)
    assert loader.delivered_share == 0
    shares = []
    for _ in range(2):
        valid = masked = 0
        for batch in loader:
            valid += int((batch["reliability"] > 0).sum())
            masked += int(((batch["reliability"] > 0) & ~batch["mask"]).sum())
            assert loader.delivered_share == pytest.approx(masked / valid, abs=1e-12)
        shares.append(loader.delivered_share)  # of the epoch that is over
    assert shares[0] != shares[1]
    assert abs(shares[0] - dataset.masked_share()) > 1e-4
    loader.load_state_dict(loader.state_dict())
    assert loader.delivered_share == 0


# --- resume


def lockstep(loaders: list[BatchLoader], steps: int) -> Iterator[list[Batch]]:
    """What all ranks get in each of so many steps; to the end of the epoch at most."""
    passes = [iter(loader) for loader in loaders]
    for _ in range(steps):
        parts = [next(one, None) for one in passes]
        if parts[0] is None:
            assert parts == [None] * len(parts)
            return
        yield [part for part in parts if part is not None]


@pytest.fixture(scope="module")
def datasets(home: Path) -> dict[str, PseudoLabelDataset]:
    kinds = {"whole": Augment(), "crops": VARIED}
    return {
        kind: PseudoLabelDataset(home / "labels", images=False, scope="batch", augment=kinds[kind]) for kind in kinds
    }


@pytest.fixture(scope="module")
def reference(datasets: dict[str, PseudoLabelDataset]) -> dict[str, list[list[Batch]]]:
    """Two epochs of whole labels and of crops, by one rank in one go."""
    loaders = {kind: dataset.loader(8) for kind, dataset in datasets.items()}
    return {kind: [list(loader), list(loader)] for kind, loader in loaders.items()}


@pytest.mark.parametrize("kind", ["whole", "crops"])
@pytest.mark.parametrize("seed", range(8))
def test_stopped_anywhere_it_goes_on_with_other_threads_and_ranks(
    datasets: dict[str, PseudoLabelDataset], reference: dict[str, list[list[Batch]]], kind: str, seed: int
) -> None:
    draw = random.Random(f"{kind} {seed}")
    state: dict[str, Any] | None = None
    epoch = at = 0  # as counted here
    while epoch < 2:
        ranks, steps = draw.choice([1, 2, 4, 8]), draw.randrange(8)
        options = draw.choice([{"threads": 1, "prefetch": 1}, {"threads": 3}, {"device": "cpu"}])
        loaders = [datasets[kind].loader(8, rank=rank, world_size=ranks, **options) for rank in range(ranks)]
        for loader in loaders:
            if state is not None:
                loader.load_state_dict(state)
        wanted = reference[kind][epoch][at:][:steps]
        found = list(lockstep(loaders, steps))
        assert len(found) == len(wanted)
        for parts, whole in zip(found, wanted, strict=True):
            count = len(whole["id"])
            assert list(itertools.chain(*(part["id"] for part in parts)))[:count] == whole["id"]
            for name in ("depth", "mask"):
                assert torch.equal(torch.cat([part[name] for part in parts])[:count], whole[name])
        states = [json.loads(json.dumps(loader.state_dict())) for loader in loaders]
        assert all(one == states[0] for one in states)
        state = states[0]
        at += len(wanted)
        if at == len(reference[kind][epoch]):
            epoch, at = epoch + 1, 0
        assert (state["epoch"], state["batch"]) == (epoch, at)


@pytest.mark.parametrize("kind", ["whole", "crops"])
def test_after_three_interruptions_with_other_workers_each_time(
    datasets: dict[str, PseudoLabelDataset], reference: dict[str, list[list[Batch]]], kind: str
) -> None:
    dataset = datasets[kind]
    found: list[Batch] = []
    state = dataset.loader(8).state_dict()
    ways: list[dict[str, Any]] = [{"num_workers": 2}, {"threads": 2}, {"num_workers": 1, "device": "cpu"}, {}]
    for steps, options in zip((1, 2, 1, 99), ways, strict=True):
        loader = dataset.loader(8, **options)
        loader.load_state_dict(state)
        found += itertools.islice(loader, steps)
        state = json.loads(json.dumps(loader.state_dict()))
    same(found, reference[kind][0])
    assert (state["epoch"], state["batch"]) == (1, 0)


# --- options


def test_options_that_cannot_be_meant(home: Path) -> None:
    dataset = PseudoLabelDataset(home / "labels", images=False)
    for wrong, told in (
        ({"threads": 0}, "threads must be a whole number of at least 1, not 0"),
        ({"prefetch": 1.5}, "prefetch must be a whole number of at least 1, not 1.5"),
        ({"num_workers": -1}, "num_workers must be a whole number of at least 0, not -1"),
        ({"threads": 2, "num_workers": 1}, "threads is for num_workers=0"),
        ({"persistent_workers": True}, "persistent_workers is for worker processes; add num_workers=1 or more"),
        ({"prefetch_factor": 2}, "prefetch_factor is for worker processes"),
        ({"prefetch_factor": 0, "num_workers": 1}, "prefetch_factor must be a whole number of at least 1, not 0"),
        ({"persistent_workers": "no"}, "persistent_workers must be True or False, not 'no'"),
        ({"pin_memory": 1}, "pin_memory must be True or False, not 1"),
        ({"timeout": -1, "num_workers": 1}, "timeout must be a number of seconds, 0 for none, not -1"),
        ({"multiprocessing_context": "thread", "num_workers": 1}, "multiprocessing_context must be .*, not 'thread'"),
        ({"device": "abacus"}, "device must be one that torch can use here"),
    ):
        with pytest.raises(UsageError, match=told):
            dataset.loader(4, **wrong)
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="device must be one that torch can use here"):
            dataset.loader(4, device="cuda")


def test_crop_and_flip_are_short_for_those_of_augment(home: Path) -> None:
    augment = Augment(crop=24, scale=(1.0, 1.5))
    dataset = PseudoLabelDataset(home / "labels", images=False, augment=augment, crop=(20, 22), flip=True)
    assert dataset.augment == Augment(crop=(20, 22), scale=(1.0, 1.5), flip=True)
    assert (dataset.crop, dataset.flip) == ((20, 22), True)
    with pytest.raises(LoaderError, match=r"crop 40x30 .* at a scale of 1.4 does not fit into the labels of 28 of 40"):
        PseudoLabelDataset(home / "labels", images=False, augment=Augment(scale=(1.0, 1.4)), crop=(40, 30))


# --- geometry


def test_image_depth_reliability_and_mask_stay_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A label whose depth, code and colours all tell the place of their pixel."""
    rows, columns = np.mgrid[:28, :42]
    codes_HW = (1 + (5 * columns + 3 * rows) % 255).astype(np.uint8)
    coded_HW3 = np.stack([6 * columns, 9 * rows, 0 * rows], axis=2).astype(np.uint8)
    monkeypatch.setattr(
        "storemaker.made_label", lambda number, shape: ((64 * rows + columns).astype(np.float32), codes_HW)
    )
    monkeypatch.setattr("storemaker.made_image", lambda number, shape: coded_HW3.repeat(2, axis=0).repeat(2, axis=1))
    make_store(tmp_path, [Picture(f"{n}.png", (56, 84), (28, 42)) for n in range(8)])
    augment = Augment(crop=(20, 24), scale=(0.5, 2.5), flip=True)
    loader = PseudoLabelDataset(tmp_path / "labels", drop=0.3, augment=augment).loader(8)
    flips, spans, t = set(), set(), int(np.quantile(codes_HW, 0.25))
    for _ in range(6):
        for batch in loader:
            y_BHW, x_BHW = (part.round() for part in (batch["depth"] // 64, batch["depth"] % 64))
            assert torch.equal(batch["reliability"].float(), 1 + (5 * x_BHW + 3 * y_BHW) % 255)
            assert (batch["image"][:, 0] * 255 / 6 - x_BHW).abs().max() <= 1.0
            assert (batch["image"][:, 1] * 255 / 9 - y_BHW).abs().max() <= 1.0
            # On average they agree much better: the nearest pixel lies half a pixel off at most, to either side.
            assert (batch["image"][:, 0] * 255 / 6 - x_BHW).mean().abs() < 0.15
            kept_BHW = batch["mask"]
            assert batch["reliability"][kept_BHW].min() > batch["reliability"][~kept_BHW].max() > t
            across_B = x_BHW[:, 0, -1] - x_BHW[:, 0, 0]
            flips |= set((across_B < 0).tolist())
            spans |= set(across_B.abs().tolist())
    assert flips == {False, True}
    assert min(spans) < 11 and max(spans) > 27  # magnified more than twice; and as much smaller as the label allows


def test_made_labels_are_as_this_file_takes_them(home: Path) -> None:
    """Depth comes as the float32 of the stored float16, whichever way it was converted."""
    for batch in PseudoLabelDataset(home / "labels", images=False).loader(4):
        for image_id, depth_HW in zip(batch["id"], batch["depth"], strict=True):
            number = int(image_id.removeprefix("default/").removesuffix(".png"))
            assert (depth_HW.numpy() == made_label(number, tuple(depth_HW.shape))[0]).all()
