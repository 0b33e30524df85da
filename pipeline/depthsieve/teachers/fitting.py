"""Whether the weights of a checkpoint are those that its model asks for."""

import re
from collections.abc import Collection, Iterable, Sequence

from depthsieve.core.errors import TeacherUnsupported

NEVER_USED = re.compile(r"fusion_stage\.layers\.0\.residual_layer1\.|\.mask_token$")
"""Weights that no forward pass reads: the first fusion layer gets no residual, and masks belong to training.

Published checkpoints (Intel/dpt-large, transformers issue 28292) leave them out.
"""


def check_fit(
    asked: Collection[str],
    *,
    mismatched: Iterable[tuple[str, Sequence[int], Sequence[int]]],
    missing: Iterable[str],
    unexpected: Iterable[str],
) -> None:
    """Raise :class:`TeacherUnsupported` unless a checkpoint has all weights that its model asks for, of its shapes, and
    no more layers.

    Args:
        asked: the names of the model's weights.
        mismatched: weights of other shapes: name, the shape that is stored, the shape that the model asks for.
        missing: names that are asked for and not stored.
        unexpected: names that are stored and not asked for; only those of further layers are refused.
    """
    if others := sorted((name, list(stored), list(wanted)) for name, stored, wanted in mismatched):
        name, stored, wanted = others[0]
        raise TeacherUnsupported(
            f"{len(others)} weights have other shapes than config.json asks for, the first is {name}: {stored}, not "
            f"{wanted}"
        )
    if lacking := sorted(name for name in missing if not NEVER_USED.search(name)):
        raise TeacherUnsupported(
            f"{len(lacking)} weights that config.json asks for are missing, the first is {lacking[0]}; "
            "random weights must not label"
        )
    known = {_numberless(name) for name in asked}
    surplus = sorted(name for name in unexpected if _numberless(name) in known and not NEVER_USED.search(name))
    if surplus:
        raise TeacherUnsupported(f"the weights hold more layers than config.json says, the first is {surplus[0]}")


def _numberless(key: str) -> str:
    return re.sub(r"\d+", "#", key)
