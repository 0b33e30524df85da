"""How many units of each map are a metre, where that differs."""

import dataclasses
import os
import unicodedata
from collections.abc import Sequence

from depthsieve.core.errors import UsageError
from depthsieve.core.patterns import fits_below
from depthsieve.evaluation.ground_truth.readers import USUAL_SCALES
from depthsieve.evaluation.ground_truth.settings import TruthSettings
from depthsieve.sources.ids import decode_path

_NEEDS_SCALE = f"ground truth in PNG needs --scale, how many units are a metre: {USUAL_SCALES}"


def scales_of(settings: TruthSettings, place: str) -> tuple[tuple[str, float], ...]:
    """The patterns of ``scale_by`` that a map fits, with their scales."""
    path = unicodedata.normalize("NFC", os.fsdecode(decode_path(place)))
    return tuple(each for each in settings.scale_by if fits_below(path, (unicodedata.normalize("NFC", each[0]),)))


def settings_at(settings: TruthSettings, place: str) -> TruthSettings:
    """The settings for the map at a place, whose scale may be one of ``scale_by``."""
    found = scales_of(settings, place)
    return dataclasses.replace(settings, scale=found[0][1]) if found else settings


def check_scales(places: Sequence[str], settings: TruthSettings) -> None:
    """Raise :class:`UsageError` for a PNG without a scale, for a map that fits two patterns of ``scale_by``, and for
    one that fits none where there is no ``scale`` for the rest. The first is named."""
    if not settings.scale_by:
        if settings.scale is None and any(place.lower().endswith(".png") for place in places):
            raise UsageError(_NEEDS_SCALE)
        return
    found = {place: scales_of(settings, place) for place in places}
    twofold = [place for place in places if len(found[place]) > 1]
    if twofold:
        (first, _), (second, _), *_ = found[twofold[0]]
        raise UsageError(
            f"{twofold[0]}{_more(twofold)} fits two patterns of --scale-by, {first!r} and {second!r}; make them "
            "such that each file fits one"
        )
    without = [place for place in places if not found[place]]
    if without and settings.scale is None:
        raise UsageError(
            f"{without[0]}{_more(without)} fits no pattern of --scale-by; add one (1: metres as they are), or --scale "
            "for all that fit none"
        )


def _more(places: Sequence[str]) -> str:
    return f" (and {len(places) - 1:,} more)" if len(places) > 1 else ""
