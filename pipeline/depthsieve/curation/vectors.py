"""Images as vectors of norm 1 whose products say how alike they are. Axes: N images, D numbers, B 64 bits of a hash."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BLOCK = 1 << 14
"""Rows that are turned into float32 at a time."""


@dataclass(frozen=True)
class Vectors:
    """Embeddings (float16 [N,D]), less their mean ``centre``: what all images have in common tells none from others."""

    raw_ND: NDArray[np.float16]
    centre_D: NDArray[np.float64]

    @classmethod
    def of(cls, raw_ND: NDArray[np.float16]) -> "Vectors":
        """The centre counts as if there were one image more, at the origin: so that two images alone can be alike."""
        total_D = np.zeros(raw_ND.shape[1])
        for start in range(0, len(raw_ND), BLOCK):
            total_D += raw_ND[start : start + BLOCK].sum(0, dtype=np.float64)
        return cls(raw_ND, total_D / (len(raw_ND) + 1))

    @classmethod
    def of_hashes(cls, phash_N: NDArray[np.uint64]) -> "Vectors":
        """Of perceptual hashes alone: the product of two is 1 - (bits that differ) / 32."""
        bits_NB = np.unpackbits(phash_N.astype(">u8").view(np.uint8).reshape(-1, 8), axis=1)
        return cls((bits_NB.astype(np.float16) * 2 - 1), np.zeros(64))

    def __len__(self) -> int:
        return len(self.raw_ND)

    def take(self, rows: NDArray[np.int64]) -> "Vectors":
        """Those of some images, about the same centre."""
        return Vectors(self.raw_ND[rows], self.centre_D)

    def rows(self, chosen: slice | NDArray[np.int64]) -> NDArray[np.float32]:
        """Some of them: float32, of norm 1."""
        centred = (self.raw_ND[chosen].astype(np.float64) - self.centre_D).astype(np.float32)
        norms = np.sqrt(np.einsum("nd,nd->n", centred, centred))
        unit: NDArray[np.float32] = centred / np.maximum(norms, 1e-12)[:, None]
        return unit

    def products(self, first_E: NDArray[np.int64], second_E: NDArray[np.int64]) -> NDArray[np.float32]:
        """The similarity of each pair, -1..1. Its bits do not depend on threads, unlike those of a matrix product."""
        done = np.empty(len(first_E), np.float32)
        for start in range(0, len(first_E), BLOCK):
            part = slice(start, start + BLOCK)
            done[part] = np.einsum("ed,ed->e", self.rows(first_E[part]), self.rows(second_E[part]))
        return done


def hamming(first_E: NDArray[np.uint64], second_E: NDArray[np.uint64]) -> NDArray[np.int64]:
    """In how many of 64 bits each pair of hashes differs."""
    different = (first_E ^ second_E).astype(">u8").view(np.uint8).reshape(-1, 8)
    counts: NDArray[np.int64] = np.unpackbits(different, axis=1).sum(1, dtype=np.int64)
    return counts
