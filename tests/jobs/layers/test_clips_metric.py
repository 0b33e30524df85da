"""Clips of a store in metres: nothing is fitted, their change is measured, and nobody says that they were aligned."""

import dataclasses
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from commandline import command
from films import LABEL, frames_in
from storemaker import SPEC, make_store

import depthsieve
from depthsieve.store import open_store

SCALES = (1, 1.25, 0.5, 1)


def test_metres_stay_and_their_known_change_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    still_HW3 = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    pictures = frames_in("run", "1.png", "2.png", "3.png", "4.png", rgb_HW3=still_HW3)
    metres_HW = np.linspace(2, 8, LABEL[0] * LABEL[1]).reshape(LABEL)
    for picture, scale in zip(pictures, SCALES, strict=True):
        object.__setattr__(picture, "depth_HW", scale * metres_HW)
        object.__setattr__(picture, "reliability_HW", np.full(LABEL, 200, np.uint8))
    spec = dataclasses.replace(SPEC, quantity="depth", unit="m")
    store = make_store(tmp_path, pictures, spec=spec, sequence=True)
    assert command(monkeypatch, "align-clips", store.location, "--json") == 0
    (clip,) = json.loads(capsys.readouterr().out)["clips"]
    spread = float(np.subtract(*np.percentile(metres_HW, (95, 5))))
    changes = [abs(b - a) * 5 / (spread * (a + b) / 2) for a, b in itertools.pairwise(SCALES)]
    assert (clip["segments"], clip["frames"]) == (1, 4)
    assert clip["change"] == clip["change_aligned"] == pytest.approx(np.mean(changes), rel=0.01)
    opened = open_store(store.location)
    for label, change in zip(opened.images, [None, *changes], strict=True):
        fit = opened[label].clip
        assert (fit.scale, fit.shift) == (1, 0) and np.array_equal(opened[label].aligned, opened[label].depth)
        assert np.isnan(fit.change) if change is None else fit.change == pytest.approx(change, rel=0.01)
    for target in ("frames", "video-depth-anything"):
        summary = depthsieve.export_labels(store.location, tmp_path / target, target=target, progress=False)
        assert not any("align-clips" in note for note in summary.notes)
        assert "align-clips" not in (tmp_path / target / "README.md").read_text()
