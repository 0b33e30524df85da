"""Which images train and which validate: decided by the id alone, so that a growing store never moves an image."""

import hashlib

from depthsieve.core.errors import UsageError

TRAIN, VAL = "train", "val"


def split_of(image_id: str, val: float) -> str:
    """Which of the two an image belongs to: "val" for a share ``val`` of all ids, those whose SHA-256 is the least.

    That is where its first 64 bits, as a fraction of 2^64, lie below ``val``.
    """
    number = int.from_bytes(hashlib.sha256(image_id.encode()).digest()[:8], "big")
    return VAL if number < val * 2.0**64 else TRAIN


def check_share(val: float) -> None:
    """Raise :class:`UsageError` unless a share for validation is one."""
    if not 0 <= val < 1:
        raise UsageError(f"--val must be a fraction, 0 or more and below 1, not {val:g}")
