"""Who may call whom: the arrows of the design's picture, each stated at both of its ends, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from charting import SERVICES, Object, Pods, default_values, of_kind, pods, render, selects

Arrow = tuple[str, str, int | None]

# docs/architecture.md, "One picture". None: any port. Ray's daemons choose theirs.
PICTURE: set[Arrow] = {
    ("gateway", "augment", 7001),
    ("gateway", "automl", 7002),
    ("gateway", "translate", 7003),
    ("gateway", "triton", 8001),
    *((service, "ray", 8265) for service in SERVICES),
    ("ray", "ray", None),
    ("ray", "gateway", 7000),
    ("ray", "triton", 8001),
    ("ray", "mlflow", 5000),
}
DATABASE: set[Arrow] = {(part, "postgresql", 5432) for part in (*SERVICES, "mlflow", "migrations")}
STORE: set[Arrow] = {(part, "s3", 7070) for part in (*SERVICES, "mlflow", "ray", "triton")}


def group_of(found: Pods) -> str:
    """Give the end of an arrow that pods are."""
    return "ray" if found.labels.get("oteo/network") == "ray" else found.part


def ends(peer: dict[str, Any], groups: Sequence[Pods]) -> set[str]:
    """Give the ends that a peer of a rule means; none where it means pods that are not Oteo's, or addresses."""
    if "namespaceSelector" in peer or "ipBlock" in peer:
        return set()
    return {group_of(found) for found in groups if selects(peer["podSelector"], found.labels)}


def arrows(objects: Sequence[Object], direction: str) -> set[Arrow]:
    """Give the arrows between Oteo's parts that the policies allow, as their targets (Ingress) or sources (Egress) state them."""
    groups = list(pods(objects))
    found: set[Arrow] = set()
    for policy in of_kind(objects, "NetworkPolicy"):
        assert direction in policy["spec"]["policyTypes"]
        own = {group_of(group) for group in groups if selects(policy["spec"]["podSelector"], group.labels)}
        for rule in policy["spec"].get(direction.lower(), []):
            for peer in rule["from" if direction == "Ingress" else "to"]:
                for other in ends(peer, groups):
                    for port in rule.get("ports", [{"port": None}]):
                        found |= {(other, mine, port["port"]) if direction == "Ingress" else (mine, other, port["port"]) for mine in own}
    return found


def test_each_arrow_is_allowed_at_both_ends_and_is_of_the_picture(preset: str) -> None:
    objects = render(preset)
    into, out = arrows(objects, "Ingress"), arrows(objects, "Egress")
    assert into == out
    parts = {group_of(found) for found in pods(objects)}
    expected = PICTURE | {arrow for arrow in DATABASE if "postgresql" in parts} | {arrow for arrow in STORE if "s3" in parts}
    if {"backup", "postgresql"} <= parts:
        expected |= {("backup", "postgresql", 5432)}
    assert into == expected


def test_everything_else_is_denied(preset: str) -> None:
    objects = render(preset)
    (deny,) = [found for found in of_kind(objects, "NetworkPolicy") if found["metadata"]["name"] == "oteo-deny"]
    assert set(deny["spec"]) == {"podSelector", "policyTypes"}
    assert deny["spec"]["policyTypes"] == ["Ingress", "Egress"]
    for found in pods(objects):
        assert selects(deny["spec"]["podSelector"], found.labels), found.name
        if found.kind != "DaemonSet":
            others = [p for p in of_kind(objects, "NetworkPolicy") if p is not deny and selects(p["spec"]["podSelector"], found.labels)]
            assert len(others) == 1, found.name


def test_ray_and_mlflow_are_reached_by_nobody_from_outside_but_who_looks_after_them(preset: str) -> None:
    objects = render(preset)
    # Callers with certificates have a port of their own where a site wants it.
    doors = {7000, 7443} if preset == "production" else {7000}
    for part, allowed in (("mlflow", set()), ("ray", {8080, 8265}), ("augment", {9100}), ("triton", {8002}), ("gateway", {*doors, 9100})):
        outside: set[int] = set()
        for policy in of_kind(objects, "NetworkPolicy"):
            if policy["metadata"]["name"] == f"oteo-{part}":
                for rule in policy["spec"]["ingress"]:
                    if any("namespaceSelector" in peer for peer in rule["from"]):
                        outside |= {port["port"] for port in rule["ports"]}
        assert outside == allowed, part


def test_nobody_reaches_the_internet_unless_values_say_so(preset: str) -> None:
    given = {entry["cidr"] for entry in _outside(render(preset))}
    assert not any(cidr.startswith("0.0.0.0") for cidr in given)
    more = _outside(render(preset, 'networkPolicies.downloads=[{"cidr": "203.0.113.0/24", "port": 443}]'))
    assert {entry["part"] for entry in more if entry["cidr"] == "203.0.113.0/24"} == {"augment", "automl", "ray"}


def test_traces_are_sent_by_all_who_have_some_to_the_collector_alone() -> None:
    sent = _outside(render("production", 'networkPolicies.collector=[{"cidr": "203.0.113.9/32", "port": 4318}]'))
    assert {entry["part"] for entry in sent if entry["cidr"] == "203.0.113.9/32"} == {*SERVICES, "triton", "ray"}


def _outside(objects: Sequence[Object]) -> list[dict[str, str]]:
    return [
        {"part": policy["metadata"]["name"].removeprefix("oteo-"), "cidr": peer["ipBlock"]["cidr"]}
        for policy in of_kind(objects, "NetworkPolicy")
        for rule in policy["spec"].get("egress", [])
        for peer in rule["to"]
        if "ipBlock" in peer
    ]


def test_only_the_gateway_reaches_the_issuer() -> None:
    assert {entry["part"] for entry in _outside(render("production")) if entry["cidr"] == "192.0.2.50/32"} == {"gateway"}


def test_only_ray_reaches_the_kubernetes_api() -> None:
    reached = {entry["part"] for entry in _outside(render("production")) if entry["cidr"] == "192.0.2.10/32"}
    assert reached == {"ray"}


def test_without_policies_there_are_none_and_the_notes_say_so() -> None:
    assert not of_kind(render("single-node-cpu", "networkPolicies.enabled=false"), "NetworkPolicy")
    assert default_values()["networkPolicies"]["enabled"] is True


@pytest.mark.parametrize("part", SERVICES)
def test_services_are_headless_so_that_callers_see_every_replica(part: str) -> None:
    objects = render("production")
    name = f"oteo-{part}-headless" if part == "gateway" else f"oteo-{part}"
    (service,) = [found for found in of_kind(objects, "Service") if found["metadata"]["name"] == name]
    assert service["spec"]["clusterIP"] == "None"
    (settings,) = [found for found in of_kind(objects, "ConfigMap") if found["metadata"]["name"] == "oteo-settings"]
    assert settings["data"][f"OTEO_{part.upper()}_ADDRESS"].startswith(f"dns:///{name}.oteo-system.svc.")
    assert settings["data"]["OTEO_MAX_CONNECTION_AGE_SECONDS"] == "300"


def test_certificates_are_for_the_names_that_are_called() -> None:
    objects = render("production")
    settings = next(found["data"] for found in of_kind(objects, "ConfigMap") if found["metadata"]["name"] == "oteo-settings")
    names = {found["metadata"]["name"]: found["spec"]["dnsNames"] for found in of_kind(objects, "Certificate")}
    for part in SERVICES:
        host = settings[f"OTEO_{part.upper()}_ADDRESS"].removeprefix("dns:///").rpartition(":")[0]
        assert host in names[f"oteo-{part}"]
    assert "oteo.hospital.example" in names["oteo-gateway"]
    (policy,) = of_kind(objects, "BackendTLSPolicy")
    assert policy["spec"]["validation"]["hostname"] in names["oteo-gateway"]
