"""While a run is going: what a stranger on another host can open, and where secrets lie on the cluster's own hosts.

docs/cluster/security.md says what there is; more is a leak.
"""

import base64
import json
import re
import stat
import subprocess
import sys
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from patience import wait_for
from s3server import SECRET

from hosts import look
from hosts.bucket import Bucket
from hosts.cluster import TOKEN, Cluster
from hosts.lab import Host, Lab, environment_folders
from hosts.runs import start

pytestmark = pytest.mark.slow

PAGE = Path(__file__).parents[2] / "docs" / "cluster" / "security.md"
METHODS = (
    "/ray.rpc.InternalKVGcsService/InternalKVKeys",
    "/ray.rpc.NodeManagerService/GetNodeStats",
    "/ray.rpc.ObjectManagerService/Pull",
    "/ray.rpc.CoreWorkerService/KillActor",
)
NO_TOKEN, NO_SUCH_METHOD = "16", "12"
STORED = """
import os
from ray._raylet import GcsClient
client = GcsClient(os.environ["GCS"])
for space in (None, b"fun", b"cluster", b"session", b"job", b"dashboard", b"serve", b"workflow", b"usage_stats"):
    for key in client.internal_kv_keys(b"", space):
        print(space, key, client.internal_kv_get(key, space))
for table in (client.get_all_job_info(), client.get_all_node_info()):
    print(table)
"""


@pytest.fixture(scope="module")
def stranger(lab: Lab) -> Host:
    """A host of the same network that has no token."""
    return lab.host("stranger")


@pytest.fixture(scope="module")
def secrets(cluster: Cluster) -> list[str]:
    spelled = [SECRET, urllib.parse.quote(SECRET, safe=""), base64.b64encode(SECRET.encode()).decode(), cluster.token]
    return [text.strip() for text in spelled]


@pytest.fixture(scope="module")
def running(lab: Lab, cluster: Cluster, bucket: Bucket, node: Host) -> Iterator[None]:
    """A run that is going, and waits for the bucket: its driver and its worker are there to be asked."""
    given = cluster.environment | bucket.environment()
    run = start(cluster.head, "watched", "--address", cluster.address, **given)
    wait_for(lambda: bucket.commits("watched"), "a commit", pause_s=0.05)
    bucket.host.wire.muted = True
    yield
    bucket.host.wire.muted = False
    assert run.ended().returncode == 0, run.shown
    assert SECRET not in run.shown


def asked(stranger: Host, *questions: tuple[object, ...]) -> list[Any]:
    """The stranger's answers."""
    run = stranger.start(sys.executable, look.__file__, stdin=subprocess.PIPE)
    said, _ = run.communicate("".join(json.dumps(question) + "\n" for question in questions))
    answers = [json.loads(line) for line in said.splitlines()]
    assert len(answers) == len(questions), run.shown
    return answers


def table(heading: str) -> list[list[str]]:
    """The rows of the table of docs/cluster/security.md below a heading, as text without backticks."""
    rows = PAGE.read_text().partition(f"\n{heading}\n")[2].partition("\n#")[0].splitlines()
    cells = [[cell.strip().replace("`", "") for cell in row.strip("|").split("|")] for row in rows if row[:1] == "|"]
    return cells[2:]


@pytest.mark.usefixtures("running")
def test_no_door_is_open_that_the_page_does_not_name(cluster: Cluster, node: Host, stranger: Host) -> None:
    found = set()
    for host, where in ((cluster.head, "head"), (node, "node")):
        doors = look.doors(host)
        if host is node:  # twice would find nothing else, and takes its time
            assert set(asked(stranger, ("open_ports", host.name))[0]) == set(doors)
        found |= {(process, where) for process in doors.values()}
    assert found == {(process, where) for process, wheres, *_ in table("### Ports") for where in wheres.split(", ")}


@pytest.mark.usefixtures("running")
def test_nothing_but_a_health_check_is_answered_without_a_token(cluster: Cluster, node: Host, stranger: Host) -> None:
    for host in (cluster.head, node):
        for port, process in look.doors(host).items():
            if process == "ray::RuntimeEnvAgent":
                call = ("http_status", host.name, port, "POST", "/get_or_create_runtime_env")
                assert asked(stranger, call) == ["401"]
            else:
                calls = [("grpc_status", host.name, port, method) for method in METHODS]
                assert set(asked(stranger, *calls)) == {NO_TOKEN, NO_SUCH_METHOD}, process


@pytest.mark.usefixtures("running")
def test_secrets_are_in_no_argument_no_file_and_no_store(
    lab: Lab, cluster: Cluster, bucket: Bucket, node: Host, secrets: list[str]
) -> None:
    for host in (cluster.head, node):
        commands = " ".join(host.processes().values())
        assert "gcs_server" in commands or "RayWorker" in commands
        held = {path: mode for secret in secrets for path, mode in look.files_with(host, secret).items()}
        assert held == {TOKEN: 0o600}
        assert not any(secret in commands for secret in secrets)
    script = cluster.head.run(sys.executable, "-c", STORED, GCS=cluster.address, **cluster.environment)
    assert script.returncode == 0 and "RayWorker" in script.stdout, script.stdout
    assert not any(secret in script.stdout for secret in secrets)
    assert not any(bucket.find(secret) for secret in secrets)
    assert bucket.find("0000-000000")  # it does look


@pytest.mark.usefixtures("running")
def test_the_secret_of_the_bucket_is_with_the_driver_and_the_nodes_and_not_with_the_head(
    cluster: Cluster, node: Host
) -> None:
    on_head = {
        look.process_name(command)
        for pid, command in cluster.head.processes().items()
        if look.environment_holds(pid, SECRET) or look.memory_holds(pid, SECRET)
    }
    assert on_head == {"depthsieve label"}
    on_node = {
        look.process_name(command)
        for pid, command in node.processes().items()
        if look.environment_holds(pid, SECRET) or look.memory_holds(pid, SECRET)
    }
    assert on_node == {process for processes, *_ in table("### Keys") for process in processes.split(", ")}


@pytest.mark.usefixtures("running")
def test_other_users_of_a_host_reach_only_what_is_rays(cluster: Cluster, node: Host) -> None:
    for host in (cluster.head, node):
        ours = re.compile("/(tmp|home|dev/shm)/(?!ray$|ray/|torchinductor_)")
        readable = [path for path in look.open_to_others(host, stat.S_IROTH) if ours.match(path)]
        assert [path for path in readable if not any(above.startswith(path) for above in environment_folders())] == []
        writable = look.open_to_others(host, stat.S_IWOTH)
        assert [path for path in writable if not re.match("/(tmp/ray($|/)|dev/)", path)] == []
        assert any(path.startswith("/tmp/ray/") for path in writable)
