"""Cut Kubernetes' and KubeRay's schemas down to what the recipes of docs/cluster use, for the tests of the recipes.

    pip install kubernetes-validate
    curl -LO https://raw.githubusercontent.com/ray-project/kuberay/v1.7.0/helm-chart/kuberay-operator/crds/ray.io_rayjobs.yaml
    python tools/trim_schemas.py ray.io_rayjobs.yaml

The whole schemas are 1.4 MB (KubeRay) and 72 MB (all versions of Kubernetes). What was cut is refused by what is left:
a recipe that uses a new field fails its test until this has been run again, which looks the field up.
"""

import importlib.metadata
import importlib.resources
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
RECIPES = ROOT / "docs" / "cluster"
SCHEMAS = ROOT / "tests" / "docs" / "schemas"
KEPT = ("type", "enum", "pattern", "minimum", "maximum", "minItems", "maxItems", "minLength", "maxLength", "oneOf")
KUBERNETES = "1.33.0"
"""The oldest whose `backoffLimitPerIndex` needs no feature gate and is stable."""

Schema = dict[str, Any]


def trim(schema: Schema, used: list[Any], follow: Callable[[str], Schema], where: str) -> Schema:
    """The part of ``schema`` that the values ``used`` need. Raises :class:`SystemExit` for a field it does not have."""
    while "$ref" in schema:
        schema = follow(schema["$ref"])
    trimmed = {key: schema[key] for key in KEPT if key in schema}
    if schema.get("x-kubernetes-int-or-string"):
        trimmed["type"] = ["integer", "string"]
    mappings = [value for value in used if isinstance(value, dict)]
    if "properties" in schema:
        trimmed["additionalProperties"] = False
        trimmed["required"] = schema.get("required", [])
        trimmed["properties"] = {}
        for name in dict.fromkeys(name for value in mappings for name in value):
            if name not in schema["properties"]:
                raise SystemExit(f"{where}.{name}: the schema knows no such field")
            below = [value[name] for value in mappings if name in value]
            trimmed["properties"][name] = trim(schema["properties"][name], below, follow, f"{where}.{name}")
    elif isinstance(schema.get("additionalProperties"), dict):
        below = [one for value in mappings for one in value.values()]
        trimmed["additionalProperties"] = trim(schema["additionalProperties"], below, follow, where)
    if "items" in schema:
        below = [one for value in used if isinstance(value, list) for one in value]
        trimmed["items"] = trim(schema["items"], below, follow, f"{where}[]")
    return trimmed


def write(name: str, comment: str, schema: Schema) -> None:
    told = {"$comment": f"{comment}; cut down by tools/trim_schemas.py"}
    (SCHEMAS / name).write_text(json.dumps(told | schema, indent=1) + "\n")


def recipes(kind: str) -> list[Any]:
    found = [yaml.safe_load(path.read_text()) for path in sorted(RECIPES.glob("kubernetes-*.yaml"))]
    return [one for one in found if one["kind"] == kind]


def main(crd: Path) -> None:
    of_kubernetes = importlib.resources.files("kubernetes_validate") / "kubernetes-json-schema"
    folder = of_kubernetes / f"v{KUBERNETES}-local-strict"
    definitions = json.loads((folder / "_definitions.json").read_text())["$defs"]
    job = json.loads((folder / "job-batch-v1.json").read_text())
    version = importlib.metadata.version("kubernetes-validate")
    source = f"From Kubernetes {KUBERNETES} (Apache-2.0), by way of kubernetes-validate {version} (Apache-2.0)"
    write(
        "kubernetes-job.json", source, trim(job, recipes("Job"), lambda ref: definitions[ref.rpartition("/")[2]], "Job")
    )
    (served,) = (one for one in yaml.safe_load(crd.read_text())["spec"]["versions"] if one["name"] == "v1")
    whole = served["schema"]["openAPIV3Schema"]
    whole["properties"]["metadata"] = {"type": "object", "properties": {"name": {"type": "string"}}}
    source = "From ray.io_rayjobs.yaml of KubeRay 1.7.0 (https://github.com/ray-project/kuberay, Apache-2.0)"
    write("kubernetes-rayjob.json", source, trim(whole, recipes("RayJob"), lambda ref: {}, "RayJob"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
