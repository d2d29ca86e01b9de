"""Values: each has its reason, each is used, each wrong one is refused, and those that contradict each other fail with a sentence."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from typing import Any

import chart_values
import jsonschema
import pytest
import yaml
from charting import CHART, PRESETS, Object, default_values, environment, helm, named, of_kind, pods, refusal, render, schema
from whole_values import merged, rendered, whole

from oteo_core.access import Role
from oteo_gateway.settings import GatewaySettings

Path_ = tuple[str | int, ...]
VALIDATOR = jsonschema.Draft202012Validator(schema())


def leaves(node: Any, path: Path_ = ()) -> Iterator[tuple[Path_, Any]]:
    """Give every value that is no list or object with something in it."""
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from leaves(value, (*path, key))
    elif isinstance(node, list) and node:
        for index, value in enumerate(node):
            yield from leaves(value, (*path, index))
    else:
        yield path, node


def put(values: Any, path: Path_, value: Any) -> Any:
    """Give a copy with one value changed."""
    changed = copy.deepcopy(values)
    node = changed
    for step in path[:-1]:
        node = node[step]
    node[path[-1]] = value
    return changed


def test_the_schema_is_what_the_models_give() -> None:
    assert schema() == chart_values.schema(), "run `make chart-schema`"


def test_the_defaults_and_the_presets_are_what_the_schema_says() -> None:
    VALIDATOR.validate(default_values())
    for preset in PRESETS:
        VALIDATOR.validate(merged(default_values(), yaml.safe_load((CHART / f"ci/{preset}.yaml").read_text())))


def test_every_line_of_the_values_says_why() -> None:
    for line in (CHART / "values.yaml").read_text().splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            reason = line.partition(" # ")[2]
            assert reason, f"no reason beside: {line}"


def test_every_key_of_the_schema_has_a_default_and_the_schema_knows_no_open_end() -> None:
    def walk(node: dict[str, Any], values: Any, path: str) -> None:
        node = schema()["$defs"][node["$ref"].rpartition("/")[2]] if "$ref" in node else node
        if node.get("type") == "object" and "properties" in node:
            assert node["additionalProperties"] is False, path
            if path.endswith(".settings"):
                return
            for name, child in node["properties"].items():
                if name == "global":
                    continue
                if name not in (values or {}):
                    # Only what is inside a list's items may be left out.
                    assert name not in node.get("required", []), f"{path}.{name}"
                    continue
                walk(child, values[name], f"{path}.{name}")
        elif node.get("type") == "array" and values:
            walk(node["items"], values[0], f"{path}[]")

    walk(schema(), default_values(), "")


def wrong_for(value: Any) -> list[Any]:
    """Give values of kinds that can never stand in another's place."""
    if isinstance(value, bool):
        return ["yes", 1]
    if isinstance(value, int | float):
        return ["many", -1e12, [1]]
    if isinstance(value, str):
        return [{"a": 1}, 3.5, [1]]
    return ["text", 7]


def test_each_wrong_value_is_refused() -> None:
    values = whole()
    VALIDATOR.validate(values)
    count = 0
    for path, value in leaves(values):
        for wrong in wrong_for(value):
            assert not VALIDATOR.is_valid(put(values, path, wrong)), (path, wrong)
            count += 1
    assert count > 600


def test_each_unknown_key_is_refused() -> None:
    values = whole()
    free = ("nodeSelector", "labels", "annotations", "namespaceLabels", "podLabels", "global")

    def objects(node: Any, path: Path_ = ()) -> Iterator[Path_]:
        if isinstance(node, dict) and not (path and path[-1] in free):
            yield path
        for key, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
            yield from objects(value, (*path, key))

    count = 0
    for path in objects(values):
        assert not VALIDATOR.is_valid(put(values, (*path, "misspelt"), 1)), path
        count += 1
    assert count > 100


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("gateway.replica=3", "replica"),
        ("gateway.settings.predict_que=3", "predict_que"),
        ('gateway.settings.triton_urls="a:1"', "triton_urls"),
        ('augment.settings.deidentification_key_file="/tmp/key"', "deidentification_key_file"),
        ('triton.gpu.resource=["nvidia.com/gpu"]', "resource"),
        ('augment.resources.limits.memory="4 GB"', "memory"),
        ("triton.autoscaling.maxReplicas=0", "maxReplicas"),
        ('triton.autoscaling.mode="hpa"', "mode"),
        ("ray.workerGroups=[]", "workerGroups"),
        ('triton.traces.url="collector:4318"', "url"),
        ('networkPolicies.database=[{"cidr": "10.0.0.1", "port": 5432}]', "cidr"),
    ],
)
def test_helm_itself_refuses_what_the_schema_refuses(value: str, says: str) -> None:
    assert says in refusal("production", value)


@pytest.mark.parametrize(
    ("preset", "values", "sentence"),
    [
        ("mig", ["networkPolicies.database=[]"], "nobody could reach the external PostgreSQL"),
        ("mig", ["networkPolicies.s3=[]"], "nobody could reach the external object store"),
        ("mig", ["networkPolicies.kubernetesApi=[]"], "Ray's autoscaler could not ask for workers"),
        ("production", ["networkPolicies.redis=[]"], "Ray's head could not reach Redis"),
        ("production", ["translate.settings.translate_train_gpus=2"], "no worker of ray.workerGroups has more than 1"),
        ("single-node-cpu", ["translate.settings.translate_train_gpus=1"], "no worker of ray.workerGroups has more than 0"),
        ("production", ['ray.head.faultTolerance.redisAddress=""'], "redisAddress is empty"),
        ("production", ['secrets.ray.key="token"'], "under auth_token alone"),
        ("production", ['ray.version="2.51.9"'], "since 2.52.0"),
        ("production", ["gateway.autoscaling.minReplicas=99"], "gateway.autoscaling.minReplicas is above"),
        ("production", ["triton.autoscaling.minReplicas=99"], "triton.autoscaling.minReplicas is above"),
        ("mig", ["triton.autoscaling.minReplicas=0"], "which only KEDA can"),
        ("production", ["ray.workerGroups[1].minReplicas=9"], "gpu has minReplicas above"),
        ("production", ['ray.workerGroups[1].name="cpu"'], "cpu is there twice"),
        ("single-node-cpu", ['s3.endpoint="http://x:1"'], "give one of the two"),
        ("single-node-cpu", ['s3.credentials="workloadIdentity"'], "set s3.credentials to secret"),
        ("production", ["traffic.grpcRoute.parentRefs=[]"], "names no Gateway"),
        ("production", ['traffic.grpcRoute.backendCaConfigMap=""'], "speak plainly to pods that speak TLS"),
        ("single-node-cpu", ["traffic.ingress.enabled=true"], "traffic.hosts is empty"),
        ("production", ['traffic.tls.issuer.name=""'], "give a cert-manager issuer"),
        ("production", ["monitoring.serviceMonitors.enabled=false"], "alerts would see nothing"),
        ("mig", ["monitoring.serviceMonitors.enabled=false"], "which asks Prometheus"),
        ("single-node-cpu", ["access.certificates.enabled=true"], "turn traffic.tls on"),
        ("single-node-cpu", ['secrets.deidentification.name="oteo-audit-key"'], "name the same key: give two"),
        ("production", ['access.certificates.caConfigMap=""'], "that callers' certificates are checked against"),
        ("production", ["networkPolicies.issuer=[]"], "could not fetch the issuer's keys"),
        ("production", ['triton.traces.url="http://192.0.2.5:4318/v1/traces"'], "nobody could send traces"),
        ("production", ['automl.settings.otlp_endpoint="http://192.0.2.5:4317"'], "nobody could send traces"),
    ],
)
def test_values_that_contradict_each_other_fail_with_a_sentence(preset: str, values: list[str], sentence: str) -> None:
    assert sentence in refusal(preset, *values)


# What a value may be instead, where neither the opposite nor a number of its own will do.
OTHERS: dict[str, Any] = {
    "pullPolicy": "Always",
    "level": "debug",
    "mode": "none",
    "traffic.tls.issuer.kind": "ClusterIssuer",
    "postgresql.mode": "external",
    "s3.mode": "external",
    "upscaling": "Conservative",
    "credentials": "workloadIdentity",
    "operator": "Exists",
    "effect": "NoExecute",
    "whenUnsatisfiable": "DoNotSchedule",
    "kind": "Issuer",
    "latencySeconds": "0.25",
    "tensorrt": "FP32",
    "availability": 0.9876,
    "latencyShare": 0.9765,
    "gpuMemoryShare": 0.8765,
    "schedule": "3 4 5 6 *",
    "prometheus": "http://another.example:9999",
    "triton.traces.url": "http://another.example:4318/v1/traces",
    "version": "9.8.7",
    "minReplicas": 1,
    "maxReplicas": 50,
    "cidr": "198.51.100.7/32",
}


# Where a value means something only beside others.
HPA_QUEUE = {"triton": {"autoscaling": {"mode": "hpa-queue", "minReplicas": 1}}}
HPA_CPU = {"triton": {"autoscaling": {"mode": "hpa-cpu", "minReplicas": 1}}}
EXTERNAL_S3 = {"s3": {"mode": "external"}, "networkPolicies": {"s3": [{"cidr": "192.0.2.9/32", "port": 9000}]}}
EXTERNAL_SQL = {"postgresql": {"mode": "external"}, "networkPolicies": {"database": [{"cidr": "192.0.2.8/32", "port": 5432}]}}
CONTEXTS: dict[str, dict[str, Any]] = {
    "gateway.replicas": {"gateway": {"autoscaling": {"enabled": False}}},
    "triton.replicas": {"triton": {"autoscaling": {"mode": "none"}}},
    "triton.autoscaling.queueMilliseconds": HPA_QUEUE,
    "triton.autoscaling.cpuPercent": HPA_CPU,
    "ray.head.faultTolerance.storage": {"ray": {"head": {"faultTolerance": {"mode": "rocksdb"}}}},
    "traffic.tls.enabled": {"access": {"certificates": {"enabled": False}}},
    "secrets.ray.key": {"ray": {"enabled": False}},
    "s3.credentials": EXTERNAL_S3,
    "s3.mode": {"networkPolicies": EXTERNAL_S3["networkPolicies"]},
    "postgresql.mode": {"networkPolicies": EXTERNAL_SQL["networkPolicies"]},
    "s3.endpoint": EXTERNAL_S3,
    "networkPolicies.s3": EXTERNAL_S3,
    "networkPolicies.database": EXTERNAL_SQL,
    "monitoring.serviceMonitors.enabled": {"triton": {"autoscaling": {"mode": "none"}}, "monitoring": {"rules": {"enabled": False}}},
}
# Values that are empty with everything on, and what they may be.
EMPTY: dict[str, Any] = {
    "gateway.audit.claim": "a-claim",
    "triton.modelCache.claim": "a-claim",
    "postgresql.volume.storageClass": "fast",
    "s3.volume.storageClass": "fast",
    "backup.volume.storageClass": "fast",
    "s3.endpoint": "https://s3.example:9000",
    "networkPolicies.s3": [{"cidr": "198.51.100.1/32", "port": 9001}],
    "networkPolicies.database": [{"cidr": "198.51.100.2/32", "port": 5433}],
}


def dotted(path: Path_) -> str:
    return ".".join(str(step) for step in path)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_each_value_changes_what_is_rendered(tmp_path: Any) -> None:
    """Texts are changed all at once, each to a word that is found again; so are numbers; what has only a few forms is changed by itself."""
    values = whole()
    texts, figures = copy.deepcopy(values), copy.deepcopy(values)
    words: dict[Path_, str] = {}
    numbers: dict[Path_, int] = {}
    rest: dict[Path_, Any] = {}
    for number, (path, value) in enumerate(leaves(values), 1):
        key = str(path[-1])
        if dotted(path) in EMPTY:
            rest[path] = EMPTY[dotted(path)]
        elif isinstance(value, bool):
            rest[path] = not value
        elif dotted(path) in CONTEXTS and isinstance(value, int | float):
            rest[path] = 7
        elif dotted(path) in OTHERS or key in OTHERS:
            rest[path] = OTHERS.get(dotted(path), OTHERS.get(key))
        elif path[:2] == ("prePull", "images"):
            rest[path] = "mlflow"
        elif isinstance(value, int | float):
            numbers[path] = 30 + number % 60 if key == "cpuPercent" else 1000 + number
            if not VALIDATOR.is_valid(put(figures, path, numbers[path])):
                rest[path] = numbers.pop(path) and 13
                continue
            figures = put(figures, path, numbers[path])
        else:
            word = _another_text(path, number)
            if dotted(path) in CONTEXTS or not VALIDATOR.is_valid(put(values, path, word)):
                rest[path] = word
                continue
            words[path] = word
            texts = put(texts, path, word)
    text = rendered(texts, tmp_path)
    assert not [dotted(path) for path, word in words.items() if word not in text]
    assert len(words) > 120
    text = rendered(figures, tmp_path)
    assert not [dotted(path) for path, number in numbers.items() if not _shown(path, number, text)]
    bases: dict[str, str] = {}
    for path, value in rest.items():
        base = merged(values, CONTEXTS.get(dotted(path), {}))
        changed = put(base, path, value)
        assert VALIDATOR.is_valid(changed), f"{dotted(path)} cannot be {value!r}: give another in OTHERS"
        key = json.dumps(base, sort_keys=True)
        bases[key] = bases.get(key) or rendered(base, tmp_path)
        assert rendered(changed, tmp_path) != bases[key], dotted(path)


def _another_text(path: Path_, number: int) -> str:
    key = str(path[-1])
    if key in ("memory", "size", "storage", "scratch", "sharedMemory"):
        return f"{7000 + number}Mi"
    if key == "cpu":
        return f"{7000 + number}m"
    if key in ("duration", "renewBefore", "interval"):
        return f"{7000 + number}h"
    return f"changed-{number}-x"


def _shown(path: Path_, value: int, text: str) -> bool:
    # Some are shown as sums or in other units.
    derived = {"drainSeconds": value + 20, "patienceSeconds": value + 600, "certificateDays": value * 86400}
    return any(re.search(rf"\b{shown}\b", text) for shown in {value, derived.get(str(path[-1]), value)})


def test_settings_reach_their_services_as_numbers_that_are_read_again() -> None:
    """A number that YAML makes a float of must not come out as 6.7e+07."""
    objects: tuple[Object, ...] = render("production")
    gateway = named(objects, "Deployment", "oteo-gateway")["spec"]["template"]["spec"]["containers"][0]
    found = environment(gateway, objects)
    assert found["OTEO_MAX_MESSAGE_BYTES"] == "67108864"
    assert found["OTEO_PREDICT_QUEUE"] == "512"
    augment = named(objects, "StatefulSet", "oteo-augment")["spec"]["template"]["spec"]["containers"][0]
    assert environment(augment, objects)["OTEO_MAX_UPLOAD_BYTES"] == "214748364800"
    automl = named(objects, "StatefulSet", "oteo-automl")["spec"]["template"]["spec"]["containers"][0]
    assert environment(automl, objects)["OTEO_ALLOW_HUB"] == "false"


def test_the_doors_settings_and_files_reach_the_gateway_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    objects: tuple[Object, ...] = render("production")
    pod = named(objects, "Deployment", "oteo-gateway")["spec"]["template"]["spec"]
    container = pod["containers"][0]
    for name, value in environment(container, objects).items():
        monkeypatch.setenv(name, "postgresql://u:p@h/d" if name == "OTEO_DATABASE_URL" else value)
    settings = GatewaySettings()
    assert (settings.oidc_issuer, settings.oidc_audience) == ("https://login.hospital.example/realms/hospital", ["oteo"])
    assert settings.oidc_roles["radiology"] == ["clinician"]
    assert settings.certificates == {"dns:pacs.hospital.example": ["clinician"]}
    assert (settings.limits[Role.CLINICIAN].images_per_day, settings.limits[Role.VIEWER].requests_per_minute) == (20_000, 300)
    assert settings.certificates_listen == "0.0.0.0:7443"
    assert 7443 in [port["containerPort"] for port in container["ports"]]
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    for path in (settings.tokens_file, settings.oidc_ca, settings.certificates_ca):
        assert path is not None
        assert mounts[str(path.parent)] in volumes
    assert volumes["tokens"]["secret"]["secretName"] == "oteo-tokens"
    augment = named(objects, "StatefulSet", "oteo-augment")["spec"]["template"]["spec"]["containers"][0]
    assert not {"OTEO_TOKENS_FILE", "OTEO_OIDC_ISSUER", "OTEO_CERTIFICATES"} & set(environment(augment, objects))


@pytest.mark.parametrize(
    ("preset", "says", "silent"),
    [
        (
            "production",
            ["OTEO_ADDRESS=oteo.hospital.example:443", "Triton starts from zero"],
            ["are for trials", "not encrypted", "port-forward"],
        ),
        (
            "single-node-cpu",
            ["The bundled PostgreSQL is for trials", "port-forward service/oteo-gateway", "not encrypted"],
            ["starts from zero"],
        ),
    ],
)
def test_the_notes_say_what_to_do_next(preset: str, says: list[str], silent: list[str]) -> None:
    done = helm("install", "oteo", str(CHART), "--namespace=oteo-system", "--dry-run=client", f"--values={CHART}/ci/{preset}.yaml")
    assert done.returncode == 0, done.stderr
    notes = done.stdout.partition("\nNOTES:\n")[2]
    # Every Secret that a pod wants is named.
    wanted = {
        volume["secret"]["secretName"] for group in pods(render(preset)) for volume in group.spec.get("volumes", []) if "secret" in volume
    }
    for group in pods(render(preset)):
        for container in group.containers():
            found = environment(container, render(preset)).values()
            wanted |= {value.partition(":")[2].partition("/")[0] for value in found if value.startswith("secret:")}
    certificates = {found["spec"]["secretName"] for found in of_kind(render(preset), "Certificate")}
    assert wanted - certificates == set(re.findall(r"get secret (\S+)$", notes, re.MULTILINE)) - {"oteo-redis"}
    assert ("get secret oteo-redis" in notes) is (preset == "production")
    for one in says:
        assert one in notes
    for one in silent:
        assert one not in notes
