"""What the indices and READMEs of several targets share."""

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Any

from depthsieve.export.protocol import Ask, Entries

AT_ONCE = 1000
"""Rows of an index that are in memory."""


def quantity_words(ask: Ask) -> str:
    """What depth is, for a README."""
    if ask.quantity == "depth":
        return "depth in metres, larger is farther"
    return "disparity: inverse depth up to an unknown scale and shift for each image, larger is nearer, without a unit"


def index_json(head: Mapping[str, Any], entries: Entries) -> Iterable[bytes]:
    """A JSON object of ``head`` and a list ``images`` of what targets said of each image, a line each."""
    return rows_json(head, "images", (entry.data for entry in entries()))


def rows_json(head: Mapping[str, Any], name: str, rows: Iterable[Mapping[str, Any]]) -> Iterable[bytes]:
    """A JSON object of ``head`` and a list of that ``name``, a line a row."""

    def lines() -> Iterator[bytes]:
        comma = ""
        for row in rows:
            yield f"{comma}\n{json.dumps(dict(row))}".encode()
            comma = ","

    return chain([f'{json.dumps(dict(head))[:-1]}, "{name}": ['.encode()], lines(), [b"\n]}\n"])
