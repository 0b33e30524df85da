"""The bytes of stores stay what they were: each kind of store in ``tests/support/pinned.py`` has the digest it had.

The digests were made by running ``pinned.py`` as a program with the code of commit c059867 and the packages that are
named below (with ``depthsieve.core.`` read as ``depthsieve.``, where its records lay then). They are only right with
these versions, since each packs in its own way: where others are installed the tests are skipped. A digest may change
only with a new version of the format or of the label spec.
"""

import importlib.metadata
from pathlib import Path

import numpy as np
import pytest
from pinned import KINDS, bytes_digest

from depthsieve.jobs.verify.repair import verify
from depthsieve.store import open_store

VERSIONS = {"numcodecs": "0.16.6", "pyarrow": "26.0.1", "zarr": "3.1.6"}
DIGESTS = {
    "plain": "e11a3cf0fa2121ec7aee72ff3cfe39c9a7dc4cfd4c04a2fba3607d83c0da52bf",
    "small": "1c55b6d80bd86857196df6ac3e5318905ad741d5ba004baf83423a5496cf6458",
    "failed": "c6511ac26ae30d2cc4154a968d7aa2f5698ca23950fecb56faeec5d81daa4088",
    "grown": "4867371c99329ed9361d55de78cdf9b2b25e5dfa3d58e0949cd8f0a21137be39",
    "layered": "b90f7fa268a3822cd6f489531b7ed514d7980b6effbd7532768389a25163031d",
    "fused": "8c24c7f224c52bf9bd0ad72676b2cbfca07c2ade26d3ad1a4e350922f674bda4",
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_store_has_the_bytes_it_had(kind: str, tmp_path: Path) -> None:
    KINDS[kind](tmp_path / kind)
    assert verify(tmp_path / kind, progress=False).sound
    here = {name: importlib.metadata.version(name) for name in VERSIONS}
    if here != VERSIONS:
        pytest.skip(f"the digests are of {VERSIONS}, and {here} are installed")
    assert bytes_digest(tmp_path / kind) == DIGESTS[kind]


def test_labels_fused_with_one_that_is_nowhere_valid_are_the_other(tmp_path: Path) -> None:
    fused = KINDS["fused"](tmp_path / "fused")
    first = open_store(tmp_path / "fused-1")
    assert len(fused.images) == 7
    for image in fused.images:
        label, own = fused.label(image), first.label(image)
        np.testing.assert_array_equal(label.reliability, own.reliability)
        np.testing.assert_array_equal(label.depth, own.depth * (own.reliability > 0))
