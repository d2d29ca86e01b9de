"""Where pods run, who goes first, and what a new one has to wait for."""

from __future__ import annotations

from typing import Any

from charting import default_values, named, of_kind, pods, render, selects

from oteo_automl.packaging.tensorrt import CACHE

REPLICATED = {"gateway", "augment", "automl", "translate", "triton"}


def test_answers_go_before_trainings_wherever_there_is_not_room_for_all(preset: str) -> None:
    objects = render(preset)
    value = {found["metadata"]["name"]: found["value"] for found in of_kind(objects, "PriorityClass")}
    assert not any(found.get("globalDefault") for found in of_kind(objects, "PriorityClass"))
    of_part = {group.part: value[group.spec["priorityClassName"]] for group in pods(objects)}
    later = {part for part in of_part if part in ("ray-worker", "pre-pull")}
    assert max(of_part[part] for part in later) < min(number for part, number in of_part.items() if part not in later)


def test_replicas_are_spread_and_a_drained_node_takes_one_at_a_time() -> None:
    objects = render("production")
    groups = {group.part: group for group in pods(objects)}
    budgets = {found["metadata"]["name"]: found["spec"] for found in of_kind(objects, "PodDisruptionBudget")}
    assert set(budgets) == {f"oteo-{part}" for part in REPLICATED}
    for part in REPLICATED:
        group = groups[part]
        spread = group.spec["topologySpreadConstraints"]
        assert [one["topologyKey"] for one in spread] == ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]
        for one in spread:
            chosen = [other.part for other in groups.values() if selects(one["labelSelector"], other.labels)]
            assert chosen == [part]
            assert one["maxSkew"] == 1
        budget = budgets[f"oteo-{part}"]
        assert selects(budget["selector"], group.labels)
        assert budget["maxUnavailable"] == 1
        # A pod that is broken already must not keep a node from being drained.
        assert budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


def test_one_replica_alone_has_no_budget_that_would_keep_its_node() -> None:
    objects = render("single-node-cpu")
    assert not of_kind(objects, "PodDisruptionBudget")
    more = render("single-node-cpu", "automl.replicas=2")
    assert [found["metadata"]["name"] for found in of_kind(more, "PodDisruptionBudget")] == ["oteo-automl"]


def test_images_are_on_nodes_before_they_are_wanted() -> None:
    """The very references that pods have, on the nodes that those run on; nothing of it runs."""
    objects = render("production", "prePull.enabled=true", 'prePull.images=["triton", "ray", "gateway"]')
    (pulling,) = [group for group in pods(objects) if group.kind == "DaemonSet"]
    pulled = {container["image"] for container in pulling.containers()}
    wanted = {
        container["image"]
        for group in pods(objects)
        if group.part in ("triton", "ray-worker", "gateway")
        for container in group.containers()
    }
    assert pulled == wanted
    assert all(container["command"] == ["sleep", "infinity"] for container in pulling.containers())
    assert pulling.spec["imagePullSecrets"] == [{"name": "oteo-registry"}]
    assert not of_kind(render("single-node-cpu"), "DaemonSet")


def test_engines_outlive_a_replica_where_a_claim_is_named() -> None:
    def cache(*values: str) -> dict[str, Any]:
        triton = named(render("gpu-box", *values), "Deployment", "oteo-triton")["spec"]["template"]["spec"]
        (volume,) = [volume for volume in triton["volumes"] if volume["name"] == "model-cache"]
        (mount,) = [mount for mount in triton["containers"][0]["volumeMounts"] if mount["name"] == "model-cache"]
        assert mount["mountPath"] == CACHE
        return {key: value for key, value in volume.items() if key != "name"}

    assert cache() == {"emptyDir": {"sizeLimit": default_values()["triton"]["modelCache"]["size"]}}
    assert cache('triton.modelCache.claim="engines"') == {"persistentVolumeClaim": {"claimName": "engines"}}
