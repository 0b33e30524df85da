"""The recipes of docs/cluster are ones that Ray, Kubernetes and KubeRay accept, and their numbers fit together."""

import copy
import json
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

RECIPES = Path(__file__).parents[2] / "docs" / "cluster"
SCHEMAS = Path(__file__).parent / "schemas"
LEAST_OVER_GRACE_S = 15


def read(name: str) -> Any:
    return yaml.safe_load((RECIPES / name).read_text())


def faults(recipe: Any) -> list[str]:
    """What the schema of its kind finds wrong."""
    schema = json.loads((SCHEMAS / f"kubernetes-{recipe['kind'].lower()}.json").read_text())
    found = jsonschema.Draft202012Validator(schema).iter_errors(recipe)
    return [f"{error.json_path}: {error.message}" for error in found]


KUBERNETES = sorted(path.name for path in RECIPES.glob("kubernetes-*.yaml"))


@pytest.mark.parametrize("name", KUBERNETES)
def test_kubernetes_knows_every_field(name: str) -> None:
    """See tools/trim_schemas.py where a recipe has a new field."""
    assert faults(read(name)) == []


@pytest.mark.parametrize(
    ("name", "path", "value"),
    [
        ("kubernetes-label.yaml", ("spec", "completions"), "16"),
        ("kubernetes-label.yaml", ("spec", "backOffLimitPerIndex"), 3),
        ("kubernetes-label.yaml", ("spec", "podFailurePolicy", "rules", 1, "onExitCodes"), [2]),
        ("kubernetes-ray.yaml", ("spec", "rayClusterSpec", "authOptions", "mode"), "tokens"),
        ("kubernetes-ray.yaml", ("spec", "rayClusterSpec", "headGroupSpec", "rayStartParams", "num-cpus"), 0),
        ("kubernetes-ray.yaml", ("spec", "rayClusterSpec", "workerGroupSpecs", 0, "template"), None),
    ],
)
def test_a_slip_is_noticed(name: str, path: tuple[str | int, ...], value: object) -> None:
    recipe = copy.deepcopy(read(name))
    at = recipe
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    assert faults(recipe) != []


def test_ray_takes_the_cluster() -> None:
    """By what `ray up` does before it asks the cloud."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    recipe = read("ray-cluster.yaml")
    validate_config(prepare_config(copy.deepcopy(recipe)))
    with pytest.raises(jsonschema.ValidationError):
        validate_config(prepare_config(copy.deepcopy(recipe) | {"max_worker": 8}))
    with pytest.raises(ValueError, match="head_node_type"):
        validate_config(prepare_config(copy.deepcopy(recipe) | {"head_node_type": "heads"}))
    for phase in ("initialization_commands", "setup_commands", "head_start_ray_commands", "worker_start_ray_commands"):
        script = "\n".join(recipe[phase]).encode()
        assert subprocess.run(["bash", "-n"], input=script, capture_output=True, check=False).stderr == b""


def job(name: str) -> tuple[Any, Any, Any]:
    """A Job's spec, its pod's and its container's."""
    spec = read(name)["spec"]
    pod = spec["template"]["spec"]
    return spec, pod, pod["containers"][0]


def grace_in(text: str) -> int:
    (seconds,) = re.findall(r"--grace[ ,\"']+(\d+)", text)
    return int(seconds)


def test_there_are_as_many_parts_as_pods() -> None:
    spec, _, container = job("kubernetes-label.yaml")
    environment = {one["name"]: one["value"] for one in container["env"]}
    assert environment["PARTS"] == str(spec["completions"])
    assert spec["completionMode"] == "Indexed"
    text = (RECIPES / "kubernetes-label.yaml").read_text()
    assert "$(" not in text.replace("$((", ""), "Kubernetes would put a variable of its own there"


@pytest.mark.parametrize("name", ["kubernetes-plan.yaml", "kubernetes-label.yaml", "kubernetes-finish.yaml"])
def test_a_pod_has_as_many_threads_as_it_requests_cores(name: str) -> None:
    (threads,) = re.findall(r"--threads[ ,\"]+(\d+)", (RECIPES / name).read_text())
    assert job(name)[2]["resources"]["requests"]["cpu"] == threads


def test_pauses_outlast_a_lease() -> None:
    from depthsieve.store.leases import STALE_S

    retries = job("kubernetes-label.yaml")[0]["backoffLimitPerIndex"]
    assert sum(10 * 2**number for number in range(retries)) > 2 * STALE_S


def test_wrong_usage_is_not_retried_and_interruptions_are() -> None:
    for name in ("kubernetes-plan.yaml", "kubernetes-label.yaml", "kubernetes-finish.yaml"):
        spec, pod, _ = job(name)
        rules = spec["podFailurePolicy"]["rules"]
        assert pod["restartPolicy"] == "Never"  # with another one there is no such policy
        assert {rule["action"] for rule in rules} <= {"FailJob", "FailIndex", "Ignore"}  # the schema names none
        assert {code for rule in rules for code in rule.get("onExitCodes", {}).get("values", [])} == {2}


@pytest.mark.parametrize("name", ["kubernetes-label.yaml", "kubernetes-finish.yaml"])
def test_a_pod_lives_longer_than_its_grace(name: str) -> None:
    assert job(name)[1]["terminationGracePeriodSeconds"] >= grace_in((RECIPES / name).read_text()) + LEAST_OVER_GRACE_S


def test_a_rayjob_lives_longer_than_its_grace() -> None:
    text = (RECIPES / "kubernetes-ray.yaml").read_text()
    (stops,) = re.findall(r'RAY_JOB_STOP_WAIT_TIME_S, value: "(\d+)"', text)
    pod = read("kubernetes-ray.yaml")["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    assert grace_in(text) + LEAST_OVER_GRACE_S <= int(stops) <= pod["terminationGracePeriodSeconds"]


@pytest.mark.parametrize("name", ["slurm-label.sh", "slurm-ray.sh"])
def test_slurm_signals_early_enough(name: str) -> None:
    text = (RECIPES / name).read_text()
    (before,) = re.findall(r"^#SBATCH --signal=B:TERM@(\d+)$", text, re.MULTILINE)
    assert int(before) >= grace_in(text) + LEAST_OVER_GRACE_S


def test_one_version_of_ray_everywhere() -> None:
    named = re.compile(r"RAY_VERSION=([\d.]+)|ray\[default\]==([\d.]+)|rayVersion: \"([\d.]+)\"")
    found = {
        path.name: {version for versions in named.findall(path.read_text()) for version in versions if version}
        for path in RECIPES.iterdir()
        if path.suffix != ".md"
    }
    assert {name for name, versions in found.items() if versions} == {
        "Dockerfile", "ray-cluster.yaml", "kubernetes-ray.yaml",
    }  # fmt: skip
    assert len(set().union(*found.values())) == 1


def test_the_image_has_the_versions_that_were_tested_and_no_rights() -> None:
    root = RECIPES.parents[1]
    lines = (RECIPES / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    said = [line.split(maxsplit=1) for line in lines if line and not line.startswith("#")]
    arguments = dict(text.split("=") for word, text in said if word == "ARG" and "=" in text)
    tested = dict(
        line.split("==") for line in (root / "constraints-dev.txt").read_text().splitlines() if "==" in line[1:]
    )
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    assert (arguments["TORCH_VERSION"], arguments["RAY_VERSION"]) == (tested["torch"], tested["ray"])
    assert arguments["VERSION"] == project["version"]
    stages = [text.split() for word, text in said if word == "FROM"]
    assert {stage[2] for stage in stages[:-1]} == {"cuda", "cpu"} and stages[-1] == ["${DEVICE}"]
    assert arguments["DEVICE"] == "cuda"
    (wheel,) = re.findall(r'"/wheels/([^"]+)"', "\n".join(lines))
    name, extras = re.fullmatch(r"(\S+)\[(\S+)\]", wheel).groups()  # type: ignore[union-attr]
    assert name == "depthsieve-$VERSION-py3-none-any.whl" and set(extras.split(",")) <= set(
        project["optional-dependencies"]
    )
    words = [word for word, _ in said]
    assert dict(said)["USER"] == "1000" and "RUN" not in words[words.index("USER") :]
    for recipe in KUBERNETES:
        text = (RECIPES / recipe).read_text()
        assert set(re.findall(r"image: (\S+)", text)) == {f"registry.example/depthsieve:{project['version']}"}
        assert set(re.findall(r"runAsUser: (\d+)", text)) == {"1000"}


def test_no_credential_is_on_a_command_line() -> None:
    for path in RECIPES.iterdir():
        assert re.findall(r"(?:SECRET|ACCESS_KEY|TOKEN)\w*=(?![.$])\S", path.read_text()) == [], path
