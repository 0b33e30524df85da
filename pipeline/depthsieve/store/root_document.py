"""What the document says that makes a folder a label store."""

import json
from collections.abc import Mapping
from typing import Any

from depthsieve.core.errors import StoreDamaged, StoreMismatch, StoreNotFound
from depthsieve.core.records import MEND, LabelSpec, canonical_json, unseal
from depthsieve.reliability.scale import SCALES
from depthsieve.store import schema


def spec_in(data: bytes, shown: str) -> tuple[dict[str, Any], LabelSpec]:
    """The attributes in a root's document, which is called ``shown``, and the label spec in them.

    Raises :class:`StoreDamaged`, :class:`StoreNotFound` and :class:`StoreMismatch`, as :func:`depthsieve.open_store`.
    """
    try:
        attributes = json.loads(data)["attributes"]
    except (ValueError, KeyError, TypeError) as error:
        raise StoreDamaged(f"{shown} is not readable as JSON; {MEND}") from error
    if not isinstance(attributes, dict) or attributes.get("format") != schema.FORMAT:
        raise StoreNotFound(f"{shown} was not made by depthsieve; name a label store")
    if attributes.get("format_version") != schema.FORMAT_VERSION:
        version = attributes.get("format_version")
        raise StoreMismatch(
            f"{shown} has store format {version}, this depthsieve reads {schema.FORMAT_VERSION}; use the release that "
            "made it"
        )
    return attributes, spec_of(unseal(canonical_json(attributes).encode(), shown), shown)


def spec_of(attributes: Mapping[str, Any], location: str) -> LabelSpec:
    """The label spec in a root's attributes. Raises :class:`StoreMismatch` for one of a later release."""
    spec = attributes["label_spec"]
    try:
        found = LabelSpec(**spec | {name: tuple(spec[name]) for name in ("signals", "parents")})
        _ = SCALES[found.spec_version]
        return found
    except (KeyError, TypeError) as error:
        raise StoreMismatch(
            f"{location} has a label spec that this depthsieve does not know; update depthsieve"
        ) from error
