"""The chart rendered by the real helm, and what tests ask of it."""

from __future__ import annotations

import functools
import json
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent.parent
CHART = ROOT / "deploy/k8s/oteo"
TOOLS = ROOT / ".build/chart-tools/bin"
PRESETS = sorted(path.stem for path in (CHART / "ci").glob("*.yaml"))
NAMESPACE = "oteo-system"
SERVICES = ("gateway", "augment", "automl", "translate")

Object = dict[str, Any]


def tool(name: str) -> str:
    """Give the path of a program that `make chart-tools` fetches."""
    path = TOOLS / name
    assert path.is_file(), f"{name} is not in {TOOLS}: run `make chart-tools`"
    return str(path)


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run helm."""
    return subprocess.run([tool("helm"), *arguments], capture_output=True, text=True, check=False, cwd=ROOT)


def arguments_of(preset: str, values: Sequence[str] = ()) -> list[str]:
    """Give helm's arguments for a preset, with values set (as JSON) on top."""
    return [f"--values={CHART / 'ci' / preset}.yaml", *(f"--set-json={value}" for value in values)]


@functools.cache
def render(preset: str, *values: str, chart: Path = CHART, release: str = "oteo") -> tuple[Object, ...]:
    """Give all objects of a preset."""
    done = helm("template", release, str(chart), f"--namespace={NAMESPACE}", *arguments_of(preset, values))
    assert done.returncode == 0, done.stderr
    return tuple(found for found in yaml.safe_load_all(done.stdout) if found)


def refusal(preset: str, *values: str) -> str:
    """Give what helm says of values that it must refuse."""
    done = helm("template", "oteo", str(CHART), *arguments_of(preset, values))
    assert done.returncode != 0, f"{values} were taken"
    return done.stderr


def of_kind(objects: Sequence[Object], *kinds: str) -> list[Object]:
    """Give the objects of some kinds."""
    return [found for found in objects if found["kind"] in kinds]


def named(objects: Sequence[Object], kind: str, name: str) -> Object:
    """Give one object."""
    (found,) = [found for found in objects if found["kind"] == kind and found["metadata"]["name"] == name]
    return found


@dataclass(frozen=True)
class Pods:
    """Pods that something makes: its kind and name, their labels and their specification."""

    kind: str
    name: str
    labels: dict[str, str]
    spec: dict[str, Any]
    template: dict[str, Any]

    @property
    def part(self) -> str:
        """Which part of Oteo they are."""
        return self.labels["oteo/part"]

    def containers(self) -> list[dict[str, Any]]:
        """Give all containers, those that run first too."""
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]

    @property
    def runs_on(self) -> bool:
        """Whether they serve, rather than end by themselves or only hold images."""
        return self.kind not in ("Job", "CronJob", "DaemonSet")


def pods(objects: Sequence[Object]) -> Iterator[Pods]:
    """Give the pods of all objects that make some."""
    for found in objects:
        name = found["metadata"]["name"]
        if found["kind"] in ("Deployment", "StatefulSet", "DaemonSet", "Job"):
            templates = [("", found["spec"]["template"])]
        elif found["kind"] == "CronJob":
            templates = [("", found["spec"]["jobTemplate"]["spec"]["template"])]
        elif found["kind"] == "RayCluster":
            templates = [("/head", found["spec"]["headGroupSpec"]["template"])]
            templates += [(f"/{group['groupName']}", group["template"]) for group in found["spec"]["workerGroupSpecs"]]
        else:
            continue
        for suffix, template in templates:
            yield Pods(found["kind"], name + suffix, template["metadata"]["labels"], template["spec"], template)


def selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    """Tell whether a selector, which has matchLabels alone, takes pods with these labels."""
    assert set(selector) <= {"matchLabels"}, selector
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())


def environment(container: dict[str, Any], objects: Sequence[Object]) -> dict[str, str]:
    """Give a container's variables; those from Secrets as ``secret:NAME/KEY``."""
    found: dict[str, str] = {}
    for source in container.get("envFrom", []):
        found.update(named(objects, "ConfigMap", source["configMapRef"]["name"])["data"])
    for variable in container.get("env", []):
        if "value" in variable:
            found[variable["name"]] = variable["value"]
        else:
            reference = variable["valueFrom"]["secretKeyRef"]
            found[variable["name"]] = f"secret:{reference['name']}/{reference['key']}"
    return found


def schema() -> dict[str, Any]:
    """Give the chart's schema."""
    found: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
    return found


def default_values() -> dict[str, Any]:
    """Give the chart's own values."""
    found: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
    return found
