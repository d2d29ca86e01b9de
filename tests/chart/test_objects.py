"""What the chart renders is what clusters take, and holds together."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from charting import CHART, NAMESPACE, SERVICES, Pods, arguments_of, environment, helm, named, of_kind, pods, render, selects, tool
from custom_resources import is_published
from trace_collector import triton_arguments

from oteo_augment.settings import AugmentSettings
from oteo_automl.settings import AutoMLSettings
from oteo_core.jobs.environment import job_environment
from oteo_core.settings import CoreSettings
from oteo_gateway.settings import GatewaySettings
from oteo_translate.settings import TranslateSettings

SETTINGS: dict[str, type[CoreSettings]] = {
    "gateway": GatewaySettings,
    "migrations": GatewaySettings,
    "augment": AugmentSettings,
    "automl": AutoMLSettings,
    "translate": TranslateSettings,
}
NEWEST = int(kubernetes_validate.latest_version().split(".")[1])
RELEASES = [f"1.{NEWEST - back}" for back in range(4)]
VALIDATED: set[tuple[str, str]] = set()


def test_helm_lints_each_preset(preset: str) -> None:
    done = helm("lint", str(CHART), "--strict", f"--namespace={NAMESPACE}", *arguments_of(preset))
    assert done.returncode == 0, done.stdout + done.stderr


def test_kubectl_reads_every_object(preset: str) -> None:
    text = "---\n".join(yaml.safe_dump(found) for found in render(preset))
    command = [tool("kubectl"), "annotate", "--local", "--filename=-", "--output=json", "oteo/read=yes"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('"oteo/read": "yes"') == len(render(preset))


def test_every_object_is_valid_for_the_last_four_releases(preset: str) -> None:
    checked = 0
    for found in render(preset):
        if is_published(found) or found["kind"] == "RayCluster":
            # tests/chart/test_custom_resources.py looks at these.
            checked += 1
            continue
        for release in RELEASES:
            # Most objects are the same in all presets.
            key = (release, json.dumps(found, sort_keys=True))
            if key not in VALIDATED:
                kubernetes_validate.validate(found, release, strict=True)
                VALIDATED.add(key)
        checked += 1
    # Ray's pods are templates inside a custom resource, which its own schema does not look into.
    for group in pods(of_kind(render(preset), "RayCluster")):
        for release in RELEASES:
            kubernetes_validate.validate(
                {"apiVersion": "v1", "kind": "Pod", **group.template, "metadata": {"name": "x"}}, release, strict=True
            )
    assert checked == len(render(preset)) > 40


def test_names_are_not_given_twice(preset: str) -> None:
    names = [(found["kind"], found["metadata"]["name"]) for found in render(preset)]
    assert len(names) == len(set(names))


def test_selectors_match_labels(preset: str) -> None:
    objects = render(preset)
    all_pods = list(pods(objects))
    for found in of_kind(objects, "Deployment", "StatefulSet", "DaemonSet"):
        assert selects(found["spec"]["selector"], found["spec"]["template"]["metadata"]["labels"]), found["metadata"]["name"]
    for found in of_kind(objects, "Service"):
        chosen = [group for group in all_pods if selects({"matchLabels": found["spec"]["selector"]}, group.labels)]
        assert len(chosen) == 1, found["metadata"]["name"]
        ports = {port["name"]: port["containerPort"] for container in chosen[0].containers() for port in container.get("ports", [])}
        for port in found["spec"]["ports"]:
            assert ports[port["targetPort"]] == port["port"], found["metadata"]["name"]
    for found in of_kind(objects, "PodDisruptionBudget"):
        assert sum(selects(found["spec"]["selector"], group.labels) for group in all_pods) == 1, found["metadata"]["name"]
    for found in of_kind(objects, "ServiceMonitor"):
        services = [service for service in of_kind(objects, "Service") if selects(found["spec"]["selector"], service["metadata"]["labels"])]
        assert services, found["metadata"]["name"]
        for service in services:
            assert found["spec"]["endpoints"][0]["port"] in {port["name"] for port in service["spec"]["ports"]}


def test_what_is_named_is_there(preset: str) -> None:
    objects = render(preset)
    accounts = {found["metadata"]["name"] for found in of_kind(objects, "ServiceAccount")}
    maps = {found["metadata"]["name"] for found in of_kind(objects, "ConfigMap")}
    classes = {found["metadata"]["name"] for found in of_kind(objects, "PriorityClass")}
    certificates = {found["spec"]["secretName"] for found in of_kind(objects, "Certificate")}
    used = set()
    for group in pods(objects):
        used.add(group.spec["serviceAccountName"])
        if name := group.spec.get("priorityClassName"):
            assert name in classes, group.name
        volumes = {volume["name"]: volume for volume in group.spec.get("volumes", [])}
        for volume in volumes.values():
            if "configMap" in volume:
                # The authorities of the hospital are there before.
                assert volume["configMap"]["name"] in maps | {"hospital-ca"}, group.name
            if volume["name"] == "tls":
                assert volume["secret"]["secretName"] in certificates, group.name
        claims = {claim["metadata"]["name"] for claim in _claims(objects, group)}
        for container in group.containers():
            assert {mount["name"] for mount in container.get("volumeMounts", [])} <= set(volumes) | claims, group.name
            environment(container, objects)
    assert used == accounts
    for found in of_kind(objects, "HorizontalPodAutoscaler", "ScaledObject"):
        target = found["spec"]["scaleTargetRef"]
        named(objects, target["kind"], target["name"])


def _claims(objects: tuple[dict[str, object], ...], group: Pods) -> list[dict[str, dict[str, str]]]:
    found: dict[str, dict[str, list[dict[str, dict[str, str]]]]] = {}
    if group.kind == "StatefulSet":
        found = named(objects, "StatefulSet", group.name)
    return found.get("spec", {}).get("volumeClaimTemplates", [])


def test_no_container_runs_as_root_or_may_more_than_restricted_pods(preset: str) -> None:
    for group in pods(render(preset)):
        security = group.spec["securityContext"]
        assert security["runAsNonRoot"] is True
        assert security["runAsUser"] > 0
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(group.spec)
        # The kinds of volumes that "restricted" allows.
        for volume in group.spec.get("volumes", []):
            assert set(volume) - {"name"} <= {"emptyDir", "secret", "configMap", "persistentVolumeClaim", "projected"}, group.name
        containers = group.containers()
        assert containers
        for container in containers:
            own = container["securityContext"]
            assert own == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "runAsNonRoot": True,
                "capabilities": {"drop": ["ALL"]},
            }, (group.name, container["name"])
            assert not any("hostPort" in port for port in container.get("ports", []))
    for found in of_kind(render(preset), "RayCluster"):
        if found["spec"]["enableInTreeAutoscaling"]:
            autoscaler = found["spec"]["autoscalerOptions"]
            assert autoscaler["securityContext"]["readOnlyRootFilesystem"] is True
            volumes = {volume["name"] for volume in found["spec"]["headGroupSpec"]["template"]["spec"]["volumes"]}
            assert {mount["name"] for mount in autoscaler["volumeMounts"]} <= volumes


def test_no_pod_has_rights_at_the_api_but_the_one_that_asks_for_workers(preset: str) -> None:
    objects = render(preset)
    for found in of_kind(objects, "ServiceAccount"):
        assert found["automountServiceAccountToken"] is False
    assert not of_kind(objects, "Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding")
    with_token = {group.part for group in pods(objects) if group.spec["automountServiceAccountToken"]}
    (ray,) = of_kind(objects, "RayCluster")
    assert with_token == ({"ray-head"} if ray["spec"]["enableInTreeAutoscaling"] else set())


def test_every_container_that_serves_has_probes_and_all_have_limits(preset: str) -> None:
    for group in pods(render(preset)):
        for container in group.containers():
            for kind in ("requests", "limits"):
                assert {"cpu", "memory"} <= set(container["resources"][kind]), (group.name, container["name"])
        if group.runs_on:
            for container in group.spec["containers"]:
                for probe in ("readinessProbe", "livenessProbe"):
                    assert {"grpc", "httpGet", "exec"} & set(container[probe]), (group.name, container["name"], probe)
                ports = {port["name"] for port in container["ports"]} | {port["containerPort"] for port in container["ports"]} | {52365}
                for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                    for kind in ("grpc", "httpGet"):
                        if kind in container.get(probe, {}):
                            assert container[probe][kind]["port"] in ports, (group.name, probe)


def test_nobody_states_replicas_that_an_autoscaler_owns(preset: str) -> None:
    objects = render(preset)
    scaled = {
        (found["spec"]["scaleTargetRef"]["kind"], found["spec"]["scaleTargetRef"]["name"])
        for found in of_kind(objects, "HorizontalPodAutoscaler", "ScaledObject")
    }
    for found in of_kind(objects, "Deployment", "StatefulSet"):
        assert ("replicas" in found["spec"]) is ((found["kind"], found["metadata"]["name"]) not in scaled), found["metadata"]["name"]
    (ray,) = of_kind(objects, "RayCluster")
    for group in ray["spec"]["workerGroupSpecs"]:
        assert ("replicas" in group) is not ray["spec"]["enableInTreeAutoscaling"]


@pytest.mark.parametrize("mode", ["keda", "hpa-queue", "hpa-cpu", "none"])
def test_each_way_of_scaling_triton_is_one_autoscaler_or_a_number(mode: str) -> None:
    objects = render(
        "production",
        f'triton.autoscaling.mode="{mode}"',
        f"triton.autoscaling.minReplicas={0 if mode == 'keda' else 2}",
        "triton.replicas=3",
    )
    scalers = [found for found in of_kind(objects, "HorizontalPodAutoscaler", "ScaledObject") if found["metadata"]["name"] == "oteo-triton"]
    deployment = named(objects, "Deployment", "oteo-triton")
    if mode == "none":
        assert not scalers
        assert deployment["spec"]["replicas"] == 3
        return
    (scaler,) = scalers
    assert "replicas" not in deployment["spec"]
    if mode == "keda":
        assert [trigger["name"] for trigger in scaler["spec"]["triggers"]] == ["inside", "wake", "needed"]
        assert scaler["spec"]["minReplicaCount"] == 0
        (bare,) = [
            found
            for found in of_kind(render("production", "triton.gpu.enabled=false"), "ScaledObject")
            if found["metadata"]["name"] == "oteo-triton"
        ]
        assert [trigger["type"] for trigger in bare["spec"]["triggers"]] == ["prometheus", "cpu", "prometheus", "prometheus"]
    else:
        (metric,) = scaler["spec"]["metrics"]
        assert metric["type"] == ("Pods" if mode == "hpa-queue" else "Resource")
        assert scaler["spec"]["behavior"]["scaleDown"]["stabilizationWindowSeconds"] == 300
    if mode == "hpa-queue":
        rule = yaml.safe_load(named(objects, "ConfigMap", "oteo-prometheus-adapter-rule")["data"]["rule.yaml"])
        assert rule["name"]["as"] == metric["pods"]["metric"]["name"]
        assert metric["pods"]["target"]["averageValue"] == "20000m"


def test_triton_records_its_part_of_traces_where_the_values_say_so() -> None:
    def arguments(*values: str) -> list[str]:
        pod = named(render("production", *values), "Deployment", "oteo-triton")["spec"]["template"]["spec"]
        return [argument for argument in pod["containers"][0]["args"] if argument.startswith("--trace-config")]

    assert arguments() == []
    collector, url = 'networkPolicies.collector=[{"cidr": "192.0.2.5/32", "port": 4318}]', "http://192.0.2.5:4318/v1/traces"
    # The same that a real Triton is started with in tests/gateway/test_tracing.py.
    assert arguments(collector, f'triton.traces.url="{url}"') == triton_arguments(url)
    assert arguments(collector, f'triton.traces.url="{url}"', "triton.traces.rate=1000") == triton_arguments(url, 1000)


def test_every_variable_is_a_setting_of_who_reads_it(preset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = render(preset)
    every = {name for kind in SETTINGS.values() for name in kind.model_fields}
    for group in pods(objects):
        for container in group.spec["containers"]:
            found = environment(container, objects)
            ours = {name.removeprefix("OTEO_").lower() for name in found if name.startswith("OTEO_")}
            if group.part in ("triton", "mlflow", "postgresql", "s3"):
                assert not ours, group.name
                continue
            if group.part == "backup":
                assert ours == {"database_url"}
                continue
            kind = SETTINGS.get(group.part)
            assert ours <= (set(kind.model_fields) if kind else every), (group.name, ours - every)
            if kind is None:
                continue
            with monkeypatch.context() as patched:
                for name, value in found.items():
                    patched.setenv(name, "postgresql://u:p@h/d" if name == "OTEO_DATABASE_URL" else value)
                settings = kind()
            if group.part in SERVICES:
                assert settings.listen.startswith("0.0.0.0:")
                assert settings.token_file is not None
                assert settings.token is None
                assert not settings.allow_anonymous
                mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
                assert {str(settings.token_file.parent), str(settings.home)} <= mounts
                # In time for its grace: calls in flight, the pause before, and the end of the process.
                assert group.spec["terminationGracePeriodSeconds"] >= settings.drain_seconds + 10


def test_secrets_are_references_alone(preset: str) -> None:
    objects = render(preset)
    assert not of_kind(objects, "Secret")
    for found in of_kind(objects, "ConfigMap"):
        assert not {"OTEO_TOKEN", "OTEO_DATABASE_URL", "AWS_SECRET_ACCESS_KEY"} & set(found.get("data", {}))
    for group in pods(objects):
        for container in group.containers():
            for variable in container.get("env", []):
                if any(word in variable["name"] for word in ("PASSWORD", "SECRET", "ACCESS_KEY", "DATABASE_URL", "STORE_URI")):
                    assert "valueFrom" in variable, (group.name, variable["name"])


def test_one_key_of_hashes_is_where_dicom_is_handled_and_a_job_finds_it_where_its_service_does(
    preset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = render(preset, 'secrets.deidentification={"name": "hashes", "key": "of-dicom"}')
    found: dict[str, str] = {}
    for group in pods(objects):
        volumes = {volume["name"]: volume for volume in group.spec.get("volumes", [])}
        for container in group.containers():
            mounts = [mount for mount in container.get("volumeMounts", []) if mount["name"] == "deidentification-key"]
            file = environment(container, objects).get("OTEO_DEIDENTIFICATION_KEY_FILE")
            assert bool(file) is bool(mounts) is ("deidentification-key" in volumes), group.name
            if file:
                found[group.part] = file
                assert mounts == [{"name": "deidentification-key", "mountPath": str(Path(file).parent), "readOnly": True}]
                assert volumes["deidentification-key"]["secret"] == {
                    "secretName": "hashes",
                    "defaultMode": 0o440,
                    "items": [{"key": "of-dicom", "path": Path(file).name}],
                }
    assert set(found) == {"gateway", "augment", "ray-head", "ray-worker"}
    (place,) = set(found.values())
    # What an import's job is given is the path that its pod has; a job of a service without the key is given none, and so keeps its pod's.
    for part, expected in (("augment", place), ("automl", None), ("translate", None)):
        container = named(objects, "StatefulSet", f"oteo-{part}")["spec"]["template"]["spec"]["containers"][0]
        with monkeypatch.context() as patched:
            for name, value in environment(container, objects).items():
                patched.setenv(name, "postgresql://u:p@h/d" if name == "OTEO_DATABASE_URL" else value)
            assert job_environment(SETTINGS[part]()).get("OTEO_DEIDENTIFICATION_KEY_FILE") == expected, part


def test_an_upgrade_keeps_what_may_not_change(preset: str, tmp_path: Path) -> None:
    """Fields that Kubernetes lets nobody change are the same whatever the version and the sizes of a release are."""
    before = render(preset)
    newer = tmp_path / "oteo"
    shutil.copytree(CHART, newer)
    chart = newer / "Chart.yaml"
    chart.write_text(chart.read_text().replace("0.1.0", "9.9.9"))
    after = render(preset, 'image.tag="9.9.9"', "automl.replicas=7", 'logging.level="debug"', 'augment.scratch="99Gi"', chart=newer)
    fixed = {
        "StatefulSet": ("selector", "serviceName", "podManagementPolicy", "volumeClaimTemplates"),
        "Deployment": ("selector",),
        "DaemonSet": ("selector",),
    }
    compared = 0
    for found in of_kind(before, *fixed):
        later = named(after, found["kind"], found["metadata"]["name"])
        for field in fixed[found["kind"]]:
            assert found["spec"].get(field) == later["spec"].get(field), (found["metadata"]["name"], field)
            # A version in a selector would change with every release.
            assert "0.1.0" not in json.dumps(found["spec"].get(field))
            compared += 1
    assert compared >= 15
    assert (
        named(before, "StatefulSet", "oteo-automl")["spec"]["replicas"]
        != 7
        == named(after, "StatefulSet", "oteo-automl")["spec"]["replicas"]
    )
    for found in of_kind(before, "StatefulSet"):
        service = named(before, "Service", found["spec"]["serviceName"])
        assert selects({"matchLabels": service["spec"]["selector"]}, found["spec"]["template"]["metadata"]["labels"])


def test_services_restart_when_what_they_read_changes() -> None:
    def annotation(*values: str) -> str:
        found: str = named(render("single-node-cpu", *values), "Deployment", "oteo-gateway")["spec"]["template"]["metadata"]["annotations"][
            "oteo/settings"
        ]
        return found

    assert annotation() == annotation("gateway.replicas=5")
    assert annotation() != annotation('logging.level="debug"')
