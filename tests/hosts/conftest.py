"""A lab for all tests here, and a cluster in it, where the machine has the rights for one."""

from collections.abc import Iterator

import pytest

from hosts.bucket import Bucket
from hosts.cluster import Cluster
from hosts.lab import Host, Lab, missing
from hosts.runs import start, upload_photos


@pytest.fixture(scope="package")
def lab() -> Iterator[Lab]:
    if reason := missing():
        pytest.skip(reason)
    with Lab() as lab:
        yield lab


@pytest.fixture(scope="package")
def bucket(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Bucket:
    bucket = lab.bucket()
    upload_photos(bucket, tmp_path_factory.mktemp("source"), 8)
    return bucket


@pytest.fixture(scope="package")
def node(lab: Lab) -> Host:
    return lab.host("node")


@pytest.fixture(scope="package")
def cluster(lab: Lab, bucket: Bucket, node: Host) -> Cluster:
    """A head and a node; meanwhile the node labels without a cluster, undisturbed."""
    undisturbed = start(node, "undisturbed", **bucket.environment())
    cluster = Cluster(lab.host("head"))
    cluster.join(node, **bucket.environment())
    done = undisturbed.ended()
    assert done.returncode == 0, done.stdout
    return cluster


@pytest.fixture(scope="package")
def expected(cluster: Cluster, bucket: Bucket) -> dict[str, str]:
    return bucket.digests("undisturbed")
