"""The error networks that a store keeps: those that its reliability, or a layer of it, comes from.

Whoever labels, repairs or resumes needs no file of the user's: a worker on another machine finds the network in the
store. It is kept twice, under a name that is made of its digest and of that of the file.
"""

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from depthsieve.core.errors import StoreDamaged
from depthsieve.core.records import LabelSpec
from depthsieve.storage import Root
from depthsieve.store import schema

if TYPE_CHECKING:
    from depthsieve.reliability.network import ErrorNetwork

FOLDER = "networks"

_SUFFIX = ".safetensors"


def network_keys(root: Root) -> list[str]:
    """Where networks are kept, sorted, also those of which one copy is missing."""
    names = {*root.names(FOLDER), *root.names(schema.copy_key(FOLDER))}
    return [f"{FOLDER}/{name}" for name in sorted(names) if name.endswith(_SUFFIX)]


def keep_network(root: Root, network: "ErrorNetwork") -> None:
    """Keep a network, where it is not kept already. Raises :class:`OSError`."""
    if next(_whole_copies(root, network.digest), None) is not None:
        return
    data = network.to_bytes()
    known = [key for key in network_keys(root) if digest_in(key) == network.digest]
    key, *_ = known or [f"{FOLDER}/{network.digest}-{hashlib.sha256(data).hexdigest()[:16]}{_SUFFIX}"]
    for place in (schema.copy_key(key), key):
        root.write(place, data)


def kept_network(root: Root, digest: str) -> "ErrorNetwork":
    """The network of that digest, by either copy. Raises :class:`StoreDamaged` where neither is whole."""
    from depthsieve.reliability.network import ErrorNetwork

    for key, data in _whole_copies(root, digest):
        return ErrorNetwork.from_bytes(data, key)
    raise StoreDamaged(
        f"{root.location}/{FOLDER} has no whole copy of the error network {digest[:12]} that reliability comes from; "
        "name the file that it was made with, --calibration FILE, which is then kept again"
    )


def network_of(root: Root, spec: LabelSpec) -> "ErrorNetwork | None":
    """The network that a store's labels are made with, None where they need none. Raises as :func:`kept_network`."""
    return kept_network(root, spec.calibration_digest) if spec.calibration_digest else None


def network_fault(data: bytes, key: str) -> str | None:
    """What is wrong with a kept network, to the byte; None where it is the file that its ``key`` names, which may be of
    a format that only another release reads."""
    of_file = _digests_in(key)[1]
    fits = len(of_file) == 16 and hashlib.sha256(data).hexdigest().startswith(of_file)
    return None if fits else "does not fit its digest"


def digest_in(key: str) -> str:
    """The digest of the network that is kept there."""
    return _digests_in(key)[0]


def _digests_in(key: str) -> tuple[str, str]:
    digest, _, of_file = key.rpartition("/")[2].removesuffix(_SUFFIX).partition("-")
    return digest, of_file


def _whole_copies(root: Root, digest: str) -> Iterator[tuple[str, bytes]]:
    """Key and bytes of each whole copy of that network; a copy is looked for only once those before it are no good."""
    for folder in (FOLDER, schema.copy_key(FOLDER)):
        for name in sorted(root.names(folder)):
            key = f"{FOLDER}/{name}"
            if not name.endswith(_SUFFIX) or digest_in(key) != digest:
                continue
            try:
                data = root.read(f"{folder}/{name}")
            except FileNotFoundError:
                continue
            if network_fault(data, key) is None:
                yield key, data
