"""A miniature of every dataset's download goes through scan and label, under its recipe."""

from pathlib import Path

import pytest
from miniatures import MINIATURES, build

from depthsieve.datasets import load_dataset
from depthsieve.scanning import scan_to
from depthsieve.sources import open_source
from depthsieve.sources.chosen import ChosenSource


@pytest.mark.parametrize("name", MINIATURES)
def test_of_a_miniature_the_right_images_are_found(name: str, tmp_path: Path) -> None:
    miniature = build(tmp_path / "root", name)
    dataset = load_dataset(name)
    source = ChosenSource(open_source(tmp_path / "root", name), dataset.counts, dataset.tells_of)
    scan = scan_to(tmp_path / "scan", [source])
    found = [image for table in scan.images() for image in table["id"].to_pylist()]
    assert found == sorted(f"{name}/{path.replace('::./', '::')}" for path in miniature.counted)
    assert (scan.tally.rejected, scan.tally.passed.hidden) == (0, 0)
    locks = 4 if name == "lsun" else 0
    assert scan.tally.passed.other == len(miniature.others) + locks
