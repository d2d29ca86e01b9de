"""Custom resources are what their projects' own schemas say."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from charting import PRESETS, Object, named, of_kind, render
from custom_resources import TRIGGERS, RayCluster, complaints, is_published
from pydantic import ValidationError
from whole_values import rendered, whole

KINDS = {"BackendTLSPolicy", "Certificate", "GRPCRoute", "PodMonitor", "PrometheusRule", "ScaledObject", "ServiceMonitor"}
VARIANTS = [
    ("production", 'triton.autoscaling.mode="hpa-queue"', "triton.autoscaling.minReplicas=1"),
    ("production", "triton.gpu.enabled=false"),
    ("production", 'ray.head.faultTolerance={"mode": "rocksdb", "storage": "2Gi"}'),
    ("production", 'ray.head.faultTolerance={"mode": "none"}', "ray.autoscaler.enabled=false"),
]


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> list[Object]:
    """Give the custom resources of all presets, of what else may be chosen, and of the values with everything on."""
    objects = [found for preset in PRESETS for found in render(preset)]
    objects += [found for variant in VARIANTS for found in render(*variant)]
    objects += [found for found in yaml.safe_load_all(rendered(whole(), tmp_path_factory.mktemp("whole"))) if found]
    # Many are the same in several of these.
    different = {json.dumps(found, sort_keys=True): found for found in objects if is_published(found) or found["kind"] == "RayCluster"}
    return list(different.values())


def test_they_are_valid_for_their_projects_schemas(everything: list[Object]) -> None:
    published = [found for found in everything if is_published(found)]
    assert {found["kind"] for found in published} == KINDS
    assert complaints(published) == []


def test_ray_clusters_are_what_kuberay_takes(everything: list[Object]) -> None:
    found = of_kind(everything, "RayCluster")
    backends = {(one["spec"].get("gcsFaultToleranceOptions") or {"backend": "none"}).get("backend", "redis") for one in found}
    assert backends == {"none", "redis", "rocksdb"}
    for one in found:
        RayCluster.model_validate(one)


def test_a_release_of_a_long_name_keeps_names_that_are_taken() -> None:
    (found,) = of_kind(render("production", release="a" * 53), "RayCluster")
    RayCluster.model_validate(found)


def test_triggers_are_what_kedas_scalers_read(everything: list[Object]) -> None:
    scaled = of_kind(everything, "ScaledObject")
    assert scaled
    for one in scaled:
        TRIGGERS.validate_python(one["spec"]["triggers"])


def _misspell(spec: dict[str, Any], old: str, new: str) -> None:
    spec[new] = spec.pop(old)


# What goes wrong in an object, and what is said of it.
WRONG: list[tuple[str, Callable[[dict[str, Any]], object], str]] = [
    ("ScaledObject", lambda spec: _misspell(spec, "pollingInterval", "pollInterval"), "pollInterval"),
    ("ScaledObject", lambda spec: spec.update(maxReplicaCount="5"), "maxReplicaCount"),
    ("ScaledObject", lambda spec: spec["triggers"][0].pop("type"), "type"),
    ("GRPCRoute", lambda spec: spec.update(hostnames=["Not_a_host"]), "hostnames"),
    ("GRPCRoute", lambda spec: _misspell(spec["rules"][0]["backendRefs"][0], "port", "ports"), "ports"),
    ("BackendTLSPolicy", lambda spec: spec["validation"].pop("hostname"), "hostname"),
    ("Certificate", lambda spec: spec["privateKey"].update(algorithm="DSA"), "algorithm"),
    ("Certificate", lambda spec: _misspell(spec, "dnsNames", "dnsNmes"), "dnsNmes"),
    ("ServiceMonitor", lambda spec: spec["endpoints"][0].update(interval="30 seconds"), "interval"),
    ("PodMonitor", lambda spec: _misspell(spec["podMetricsEndpoints"][0], "interval", "every"), "every"),
    ("PrometheusRule", lambda spec: spec["groups"][0]["rules"][0].pop("expr"), "expr"),
    ("PrometheusRule", lambda spec: spec["groups"][0].update(interval="soon"), "interval"),
]


def test_what_is_wrong_is_told() -> None:
    objects = render("production")
    broken = []
    for number, (kind, spoil, _) in enumerate(WRONG):
        one = copy.deepcopy(of_kind(objects, kind)[0])
        spoil(one["spec"])
        one["metadata"]["name"] = f"wrong-{number}"
        broken.append(one)
    unknown = {**copy.deepcopy(of_kind(objects, "Certificate")[0]), "kind": "Certificat"}
    said = complaints([*broken, unknown])
    assert [text for text in said if "nobody publishes Certificat of" in text]
    for number, (kind, _, word) in enumerate(WRONG):
        about = [text for text in said if text.startswith(f"{kind} wrong-{number}:")]
        assert any(word in text for text in about), (kind, number, about)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda found: found["metadata"].update(name="r" * 54),
        lambda found: found["spec"].update(rayVersion="2.51.0"),
        lambda found: found["spec"]["headGroupSpec"].update(enableIngres=True),
        lambda found: found["spec"]["workerGroupSpecs"][0].update(minReplicas=99),
        lambda found: found["spec"]["headGroupSpec"]["template"]["spec"].update(restartPolicy="Always"),
        lambda found: found["spec"]["gcsFaultToleranceOptions"].update(backend="rocksdb"),
    ],
)
def test_a_wrong_ray_cluster_is_refused(spoil: Callable[[Object], object]) -> None:
    found = copy.deepcopy(named(render("production"), "RayCluster", "oteo-ray"))
    spoil(found)
    with pytest.raises(ValidationError):
        RayCluster.model_validate(found)


def test_triggers_that_kedas_scalers_do_not_read_are_refused() -> None:
    (found,) = of_kind(render("production"), "ScaledObject")
    triggers = copy.deepcopy(found["spec"]["triggers"])
    triggers[0]["metadata"]["treshold"] = triggers[0]["metadata"].pop("threshold")
    with pytest.raises(ValidationError):
        TRIGGERS.validate_python(triggers)
