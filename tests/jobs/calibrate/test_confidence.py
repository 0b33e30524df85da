"""A teacher's own confidence, while calibrating and wherever the calibration goes."""

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from labelled import label, write_photos
from numpy.typing import NDArray
from PIL import Image
from torch.nn.functional import interpolate

import depthsieve
from depthsieve.core.errors import StoreMismatch
from depthsieve.core.progress import progress_bar
from depthsieve.core.threads import torch_threads
from depthsieve.images.decode import decode
from depthsieve.jobs.calibrate import training
from depthsieve.jobs.calibrate.confidence import ConfidenceSummary, fit_confidence
from depthsieve.jobs.calibrate.examples import Example
from depthsieve.jobs.calibrate.judging import BOTH, NATIVE, NETWORK, score
from depthsieve.jobs.calibrate.progress import Unfinished
from depthsieve.reliability.code import encode_error
from depthsieve.reliability.network import ErrorNetwork
from depthsieve.reliability.scale import CODE_VERSION
from depthsieve.store.stored_images import to_label_shape
from depthsieve.teachers import Batch, Prediction, Teacher, load_teacher

SMALL = {"scenes": 20, "judged": 2, "steps": 2, "progress": False}


class Blotched(Teacher):
    """A teacher whose labels are wrong in blotches that nothing in the photo shows, and that knows where.

    ``says``: "higher" or "lower" is better and true; "reversed", declared the wrong way round; "noise", "nothing".
    """

    name = "blotched"
    weights_digest = hashlib.sha256(b"blotched").hexdigest()
    quantity = "disparity"
    unit = ""
    dtype = "float32"
    preprocessing: Any = {"rule": "as tiny-v1"}  # noqa: RUF012
    confidence_meaning = "where it is blotched"

    def __init__(self, says: str) -> None:
        self.says, self._inner = says, load_teacher("tiny-v1", size=56, device="cpu")
        self.device = self._inner.device
        self.confidence_better = None if says == "nothing" else "lower" if says == "lower" else "higher"
        if says == "nothing":
            self.confidence_meaning = ""

    def label_shape(self, height: int, width: int) -> tuple[int, int]:
        return self._inner.label_shape(height, width)

    def prepare(self, rgb_HW3: NDArray[np.uint8], shape: tuple[int, int]) -> NDArray[np.float32]:
        return self._inner.prepare(rgb_HW3, shape)

    def predict(self, batch: Batch) -> Prediction:
        depth_BHW = self._inner.predict(batch).depth
        blotches, said = [], []
        for image_CHW in batch.image:
            seed = int(hashlib.sha256(image_CHW.numpy().tobytes()).hexdigest()[:8], 16)
            dice = torch.Generator().manual_seed(seed)
            blotches.append(torch.rand(2, 5, 6, generator=dice))
            said.append(torch.rand(image_CHW.shape[1:], generator=dice))
        size = (depth_BHW.shape[1], depth_BHW.shape[2])
        strong_B2HW = interpolate(torch.stack(blotches), size, mode="nearest")
        strength_BHW = 0.8 * strong_B2HW[:, 0] ** 3
        depth_BHW = depth_BHW * (1 + strength_BHW * (strong_B2HW[:, 1] > 0.5))
        wrong_BHW = strength_BHW * (strong_B2HW[:, 1] > 0.5)
        if self.says == "nothing":
            return Prediction(depth_BHW)
        says = {"lower": wrong_BHW, "reversed": 1 + wrong_BHW, "noise": torch.stack(said)}
        return Prediction(depth_BHW, confidence=says.get(self.says, 1 / (0.1 + wrong_BHW)).contiguous())


def blotched(request: Any) -> Blotched:
    """As a plug-in's factory: the one whose confidence is right."""
    return Blotched("higher")


def patched(seed: int, says: str) -> Example:
    """A label with known errors, of which the photo shows half; the confidence says them all, or nothing."""
    dice = np.random.default_rng(seed)
    photo_HW3 = dice.integers(0, 120, (32, 32, 3), dtype=np.uint8)
    depth_HW = (1 + np.linspace(0, 1, 32)[:, None] + 0.01 * dice.random((32, 32))).astype(np.float32)
    error_HW = np.full((32, 32), 0.02, np.float32)
    left, top = 16 * int(dice.integers(2)), 16 * int(dice.integers(2))
    photo_HW3[:, left : left + 16, 0] += 130
    error_HW[:, left : left + 16] += 0.1
    error_HW[top : top + 16] += 0.2  # this half shows nowhere
    error_HW *= dice.uniform(0.8, 1.2, error_HW.shape).astype(np.float32)
    right = {"higher": 1 / error_HW, "lower": error_HW, "reversed": error_HW, "misled": 1 / (0.4 - error_HW)}
    confidence_HW = right[says] if says in right else dice.random((32, 32))
    return Example(photo_HW3, depth_HW, np.stack((error_HW, 2 * error_HW)), confidence_HW.astype(np.float32))


@dataclasses.dataclass
class Declares:
    """As much of a teacher as the fit asks for."""

    confidence_better: str
    confidence_meaning: str = "what it says"


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> ErrorNetwork:
    """A network that has seen what photos show of those errors."""
    unfinished = Unfinished(tmp_path_factory.mktemp("made") / "network", {})
    for number in range(24):
        unfinished.keep(number, training.stored(patched(number, "noise"), "disparity", number))
    network = ErrorNetwork.random(0)
    with torch.random.fork_rng(devices=[]), progress_bar("", shown=False) as bar:
        training.train(network, unfinished, [list(range(20))], 40, 0, bar)
    training.fit_blend(network, [unfinished.example(number) for number in range(20, 24)])
    return network


def fitted(learnt: ErrorNetwork, says: str) -> tuple[ErrorNetwork, ConfidenceSummary, dict[str, Any]]:
    records = [training.stored(patched(number, says), "disparity", number) for number in range(26)]
    declared: Any = Declares("lower" if says == "lower" else "higher")
    network, native, found = fit_confidence(declared, learnt, records[:20], records[20:])
    judged = []
    for seed in range(100, 106):
        seen = patched(seed, says)
        assert seen.confidence_HW is not None
        maps = [torch.from_numpy(one)[None] for one in (seen.photo_HW3, seen.depth_HW, seen.confidence_HW)]
        said = {NETWORK: learnt.expected_error(*maps[:2])[0].numpy()}
        said[NATIVE] = native.logs(maps[2])[0, 0].exp().numpy()
        sure_1HW = None if network.native is None else maps[2]
        said[BOTH] = network.expected_error(*maps[:2], "disparity", sure_1HW)[0].numpy()
        judged.append((seen, said))
    return network, found, {one.method: one for one in score("scenes", judged, {})}


@pytest.mark.parametrize("says", ["higher", "lower", "reversed"])
def test_a_confidence_that_knows_finds_what_the_network_cannot_see(learnt: ErrorNetwork, says: str) -> None:
    network, found, scores = fitted(learnt, says)
    assert found.used and found.ause_ratios is not None and max(found.ause_ratios) < 0.5
    assert scores[BOTH].ause < 0.3 * scores[NETWORK].ause
    assert scores[BOTH].abs_rel_ause < 0.3 * scores[NETWORK].abs_rel_ause
    assert scores[NATIVE].expected == pytest.approx(1, abs=0.1) and scores[BOTH].expected == pytest.approx(1, abs=0.15)
    assert network.native is not None and network.version.startswith("network-native-")
    assert dataclasses.replace(found, correlation=0.05).is_reversed == (says == "reversed")  # since it is used
    assert found.found == ("higher" if says == "higher" else "lower")
    told = [line for line in found.notes() if "correct its confidence_better" in line]
    assert len(told) == (says == "reversed") == len(found.notes())
    assert not told or "declares that higher confidence is better, and its errors rise with it" in told[0]


def test_a_confidence_of_noise_leaves_the_network_as_it_is(learnt: ErrorNetwork) -> None:
    network, found, scores = fitted(learnt, "noise")
    assert network is learnt and not found.used and not found.is_reversed
    assert abs(found.correlation) < 0.05 and scores[BOTH].ause == scores[NETWORK].ause
    (line,) = found.notes()
    assert "own confidence (what it says) tells no more than the network" in line and "it is not used" in line


def test_a_confidence_that_never_changes_is_not_used(learnt: ErrorNetwork) -> None:
    records = [training.stored(patched(number, "noise"), "disparity", number) for number in range(4)]
    for record_HW in records:
        record_HW["confidence"] = 1
    declared: Any = Declares("lower")
    network, _, found = fit_confidence(declared, learnt, records[:2], records[2:])
    assert network is learnt and (found.used, found.ause_ratios, found.correlation) == (False, None, 0)


# The whole way


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A calibration of a teacher that knows where it is wrong, photos, and a store by both."""
    folder = tmp_path_factory.mktemp("native")
    summary = depthsieve.calibrate(Blotched("higher"), folder / "native.safetensors", **{**SMALL, "scenes": 80})
    assert summary.confidence is not None and summary.confidence.used and summary.confidence.notes() == ()
    by_method = {one.method: one for one in summary.scores}
    assert list(by_method) == [NETWORK, NATIVE, BOTH, "flip, fused", "level of the label"]
    assert by_method[BOTH].ause < 0.75 * by_method[NETWORK].ause  # a network that knows nothing, of two steps
    assert by_method[BOTH].abs_rel_ause < 1.15 * by_method[NETWORK].abs_rel_ause
    assert by_method[NATIVE].extra_time == 0 and by_method[BOTH].extra_time is not None
    write_photos(folder / "photos", 3)
    options = {"calibration": str(folder / "native.safetensors")}
    assert label(folder / "photos", folder / "store", f"{__name__}:blotched", **options).labelled == 3
    return folder


def test_labels_have_the_errors_of_photo_label_and_confidence(made: Path) -> None:
    store, network = depthsieve.open_store(made / "store"), ErrorNetwork.load(made / "native.safetensors")
    assert store.spec.calibration == f"network-native-{network.digest[:8]}"
    assert store.spec.calibration_digest == network.digest and store.spec.signals == ("network",)
    assert "by photo, label and own confidence" in store.reliability_from
    teacher = Blotched("higher")
    for image in store:
        found = store[image]
        rgb_HW3 = decode((made / "photos" / image.partition("/")[2]).read_bytes()).rgb_HW3
        with torch_threads(1):  # as the store was labelled
            batch = Batch.of(torch.from_numpy(teacher.prepare(rgb_HW3, found.shape))[None])
            confidence_1HW = teacher.predict(batch).confidence
            photo_1HW3 = torch.from_numpy(to_label_shape(rgb_HW3, found.shape))[None]
            depth_1HW = torch.from_numpy(found.depth)[None]
            e_1HW = network.expected_error(photo_1HW3, depth_1HW, "disparity", confidence_1HW)
        codes_HW = encode_error(e_1HW, version=CODE_VERSION)[0].numpy()
        np.testing.assert_array_equal(found.reliability, codes_HW)


def test_who_has_no_confidence_goes_by_photo_and_label_and_says_so(made: Path, tmp_path: Path) -> None:
    """Another teacher, stored labels, and maps made elsewhere."""
    file, alone = made / "native.safetensors", ErrorNetwork.load(made / "native.safetensors").without_confidence()
    other = label(made / "photos", tmp_path / "other", "tiny-v1", size=56, calibration=str(file))
    assert any("teacher 'tiny-v1' does not give that one" in line for line in other.notes)
    spec = depthsieve.open_store(tmp_path / "other").spec
    assert (spec.calibration, spec.calibration_digest) == (f"{alone.version}-transferred", alone.digest)
    same = depthsieve.recalibrate(made / "store", calibration=file, progress=False)
    assert same.layer is None and same.calibration.startswith("network-native-")
    label(made / "photos", tmp_path / "flip", f"{__name__}:blotched", signals="flip")
    layer = depthsieve.recalibrate(tmp_path / "flip", calibration=file, progress=False)
    assert layer.confidence_left_out and layer.layer == alone.version and not layer.transferred
    again = depthsieve.recalibrate(tmp_path / "flip", name=layer.layer, progress=False)  # by the store's copy
    assert (again.shards, again.shards_now) == (layer.shards, 0)


def test_another_confidence_is_another_store(made: Path) -> None:
    with pytest.raises(StoreMismatch, match="calibration_digest"):
        label(made / "photos", made / "store", f"{__name__}:forgetful", calibration=str(made / "native.safetensors"))


def forgetful(request: Any) -> Blotched:
    """The same weights, without their confidence."""
    return Blotched("nothing")


def test_a_confidence_that_is_not_used_leaves_the_network_of_a_teacher_that_says_nothing(tmp_path: Path) -> None:
    settings = {**SMALL, "judged": 1, "steps": 1}
    noise, nothing = (
        depthsieve.calibrate(Blotched(says), tmp_path / says, **settings) for says in ("noise", "nothing")
    )
    assert noise.digest == nothing.digest and nothing.confidence is None
    assert noise.confidence is not None and not noise.confidence.used and noise.confidence.held_back == 1
    assert "4 are needed to try it on; learn from more scenes" in noise.confidence.notes()[0]
    meta = ErrorNetwork.load(tmp_path / "noise").meta["confidence"]
    assert (meta["meaning"], meta["used"]) == ("where it is blotched", False)


def test_a_confidence_that_fails_on_the_other_labels_held_back_is_not_used(learnt: ErrorNetwork) -> None:
    says = ["higher"] * 20 + ["higher", "misled"] * 4
    records = [training.stored(patched(number, what), "disparity", number) for number, what in enumerate(says)]
    declared: Any = Declares("higher")
    network, _, found = fit_confidence(declared, learnt, records[:20], records[20:])
    assert network is learnt and not found.used and found.ause_ratios is not None and min(found.ause_ratios) > 1
    assert f"(AUSE {found.ause_ratios[0]:.2f} and {found.ause_ratios[1]:.2f} times that without)" in found.notes()[0]


def doubting(request: Any) -> Blotched:
    """The one whose confidence is right, but for a pixel where it is no number."""
    teacher = Blotched("higher")
    inner = teacher.predict

    def predict(batch: Batch) -> Prediction:
        found = inner(batch)
        assert found.confidence is not None
        found.confidence[:, 3, 3] = torch.nan
        return found

    teacher.predict = predict  # type: ignore[method-assign]
    return teacher


def test_an_image_whose_confidence_is_no_number_fails_by_name(made: Path, tmp_path: Path) -> None:
    options = {"calibration": str(made / "native.safetensors")}
    done = label(made / "photos", tmp_path / "store", f"{__name__}:doubting", **options)
    assert len(done.failed) == 3 and "confidence is negative or no number at 1 of" in done.failed[0].reason


def test_maps_made_elsewhere_go_by_photo_and_label_and_it_is_said(made: Path, tmp_path: Path) -> None:
    (tmp_path / "maps").mkdir()
    for photo in sorted((made / "photos").iterdir()):
        with Image.open(photo) as opened:
            width, height = opened.size
        np.save(tmp_path / "maps" / f"{photo.stem}.npy", np.linspace(1, 2, height * width).reshape(height, width))
    done = depthsieve.import_labels(
        tmp_path / "maps",
        tmp_path / "store",
        images=made / "photos",
        quantity="disparity",
        calibration=made / "native.safetensors",
        progress=False,
    )
    assert done.imported_now == 3 and any("an import does not give that one" in line for line in done.notes)
    alone = ErrorNetwork.load(made / "native.safetensors").without_confidence()
    assert depthsieve.open_store(tmp_path / "store").spec.calibration_digest == alone.digest
