"""A cluster of two hosts that share a bucket only, and two parts of a job array there: the same bytes."""

import pytest

from hosts.bucket import Bucket
from hosts.cluster import Cluster
from hosts.lab import Host, Lab
from hosts.runs import problems, start, wait_until_idle, working

pytestmark = pytest.mark.slow


def test_a_ray_worker_on_another_host_labels_to_the_same_bytes(
    cluster: Cluster, bucket: Bucket, node: Host, expected: dict[str, str]
) -> None:
    before = len(bucket.calls())
    done = start(
        cluster.head, "ray", "--address", cluster.address, **cluster.environment | bucket.environment()
    ).ended()
    assert (done.returncode, "8 of 8 images labelled" in done.stdout) == (0, True), done.stdout
    assert problems(bucket, "ray", expected) == []
    commits = {call.split()[0] for call in bucket.calls(before) if " PUT /data/ray/commits/0000-0" in call}
    assert commits == {node.ip}
    wait_until_idle(cluster.head, node)


def test_parts_on_two_hosts_label_to_the_same_bytes(
    cluster: Cluster, bucket: Bucket, node: Host, expected: dict[str, str]
) -> None:
    planned = start(node, "parts", "--write", verb="plan", **bucket.environment()).ended()
    assert planned.returncode == 0, planned.stdout
    before = len(bucket.calls())
    parts = [
        start(host, "parts", "--part", f"{number}/2", **bucket.environment())
        for number, host in ((1, cluster.head), (2, node))
    ]
    for part in parts:
        assert part.ended().returncode == 0, part.shown
    commits = {call.split()[0] for call in bucket.calls(before) if " PUT /data/parts/commits/0000-0" in call}
    assert commits == {node.ip, cluster.head.ip}
    assert problems(bucket, "parts", expected) == []
    assert working(cluster.head, node) == []


def test_a_driver_that_is_on_no_node_is_told_so(lab: Lab, cluster: Cluster, bucket: Bucket) -> None:
    outside = lab.host("outside")
    cluster.give_token(outside)
    run = start(outside, "none", "--address", cluster.address, **cluster.environment | bucket.environment()).ended()
    words = "Error: cannot reach Ray at head:6379: no node of a cluster runs on this machine"
    assert (run.returncode, words in run.stdout) == (1, True), run.stdout
    outside.power_off()
