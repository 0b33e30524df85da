"""A lab for the tests of a module, where the machine has the rights for one."""

from collections.abc import Iterator

import pytest

from hosts.lab import Lab, missing


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    if reason := missing():
        pytest.skip(reason)
    with Lab() as lab:
        yield lab
