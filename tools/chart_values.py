"""The values of the Helm chart as Pydantic models, and the JSON schema that comes of them.

``python tools/chart_values.py`` writes ``deploy/k8s/oteo/values.schema.json``; with ``--check`` it says whether that file is up to date. Helm refuses values
that the schema does not know, so a misspelt key fails before anything is installed. Settings of the services are taken from their own classes: a setting
that a service does not have cannot be given.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model

from oteo_augment.settings import AugmentSettings
from oteo_automl.settings import AutoMLSettings
from oteo_core.settings import CoreSettings
from oteo_gateway.settings import GatewaySettings
from oteo_translate.settings import TranslateSettings

SCHEMA = Path(__file__).resolve().parent.parent / "deploy/k8s/oteo/values.schema.json"

MANAGED = frozenset(
    {
        *("home", "artifacts", "artifact_options", "database_url", "ray_address", "ray_token_path", "job_python", "mlflow_uri"),
        *("triton_urls", "model_repository", "augment_address", "automl_address", "translate_address", "gateway_address", "listen"),
        *("metrics_port", "token", "token_file", "allow_anonymous", "tls_cert", "tls_key", "tls_ca", "tls_client_ca", "tls_client_auth"),
        *("max_connection_age_seconds", "drain_seconds", "log_format", "log_level", "audit_folder", "audit_key_file", "audit_archive"),
        *("tokens_file", "oidc_ca", "certificates_listen", "certificates_ca", "callers_listen", "callers_cert", "callers_key"),
        "deidentification_key_file",
    }
)
"""Settings that the chart itself gives, from other values."""


class Values(BaseModel):
    """A part of the values; a key that it does not have is refused."""

    model_config = ConfigDict(extra="forbid", title=None)


Name = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", max_length=253)]
KeyName = Annotated[str, Field(pattern=r"^[-._a-zA-Z0-9]+$")]
Quantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?$")]
ResourceName = Annotated[str, Field(pattern=r"^([-a-z0-9.]+/)?[-a-zA-Z0-9_.]+$")]
Duration = Annotated[str, Field(pattern=r"^([0-9]+(h|m|s))+$")]
Cidr = Annotated[str, Field(pattern=r"^([0-9]{1,3}(\.[0-9]{1,3}){3}/[0-9]{1,2}|[0-9a-fA-F:]+/[0-9]{1,3})$")]
Port = Annotated[int, Field(ge=1, le=65535)]
Labels = dict[str, str]
Percent = Annotated[int, Field(ge=1, le=100)]


class Toleration(Values):
    """A Kubernetes toleration."""

    key: str = ""
    operator: Literal["Exists", "Equal"] = "Equal"
    value: str = ""
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = ""


class Amount(Values):
    """CPU and memory."""

    cpu: Quantity
    memory: Quantity


class Resources(Values):
    """Requests and limits of a container."""

    requests: Amount
    limits: Amount


class Placing(Values):
    """Where pods may run."""

    nodeSelector: Labels = {}
    tolerations: list[Toleration] = []


class Image(Values):
    """Where Oteo's images come from."""

    registry: str = Field(default="", pattern=r"^([a-zA-Z0-9][-a-zA-Z0-9.:/_]*[a-zA-Z0-9])?$")
    tag: str = Field(default="", pattern=r"^[-._a-zA-Z0-9]*$")
    pullPolicy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    pullSecrets: list[Name] = []


class Images(Values):
    """Names of the images; Oteo's are looked for below the registry, the others are taken as they are."""

    gateway: str = Field(min_length=1)
    augment: str = Field(min_length=1)
    automl: str = Field(min_length=1)
    translate: str = Field(min_length=1)
    mlflow: str = Field(min_length=1)
    ray: str = Field(min_length=1)
    triton: str = Field(min_length=1)
    postgresql: str = Field(min_length=1)
    s3: str = Field(min_length=1)


class SecretKey(Values):
    """A key of a Secret."""

    name: Name
    key: KeyName


class S3Secret(Values):
    """The Secret of the object store's credentials."""

    name: Name
    accessKey: KeyName
    secretKey: KeyName


class DatabaseSecret(Values):
    """The Secret of the databases' URLs."""

    name: Name
    url: KeyName
    mlflowUrl: KeyName
    password: KeyName


class RedisSecret(Values):
    """The Secret of Redis' password; no name: none is needed."""

    name: str = Field(pattern=r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$")
    key: KeyName


class TokensSecret(Values):
    """The Secret of the file of static tokens; no name: there are none."""

    name: str = Field(pattern=r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$")
    key: KeyName


class Secrets(Values):
    """Secrets that are there before the chart is installed."""

    token: SecretKey
    audit: SecretKey
    deidentification: SecretKey
    ray: SecretKey
    database: DatabaseSecret
    s3: S3Secret
    redis: RedisSecret
    tokens: TokensSecret


def settings_of(kind: type[CoreSettings], name: str) -> type[BaseModel]:
    """Give the model of the settings that may be given to a service."""
    fields: dict[str, Any] = {}
    for field, info in kind.model_fields.items():
        if field in MANAGED:
            continue
        annotation: Any = info.annotation
        for constraint in info.metadata:
            annotation = Annotated[annotation, constraint]
        fields[field] = (annotation, Field(default=None, description=info.description))
    return create_model(name, __config__=ConfigDict(extra="forbid"), **fields)


GatewayOwn = settings_of(GatewaySettings, "GatewayOwn")
AugmentOwn = settings_of(AugmentSettings, "AugmentOwn")
AutoMLOwn = settings_of(AutoMLSettings, "AutoMLOwn")
TranslateOwn = settings_of(TranslateSettings, "TranslateOwn")


class HorizontalScaling(Values):
    """An autoscaler on CPU."""

    enabled: bool
    minReplicas: int = Field(ge=1, le=100)
    maxReplicas: int = Field(ge=1, le=100)
    cpuPercent: Percent
    scaleDownSeconds: int = Field(ge=0, le=3600)


class Service(Placing):
    """What every service has."""

    replicas: int = Field(ge=1, le=100)
    resources: Resources
    drainSeconds: int = Field(ge=0, le=3600)
    scratch: Quantity


class AuditVolume(Values):
    """Where gateways write the audit log."""

    claim: str = Field(pattern=r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$")
    size: Quantity


class GatewayValues(Service):
    """The gateway."""

    audit: AuditVolume
    autoscaling: HorizontalScaling
    settings: GatewayOwn  # type: ignore[valid-type]


class AugmentValues(Service):
    """Augment."""

    settings: AugmentOwn  # type: ignore[valid-type]


class AutoMLValues(Service):
    """AutoML."""

    settings: AutoMLOwn  # type: ignore[valid-type]


class TranslateValues(Service):
    """Translate."""

    settings: TranslateOwn  # type: ignore[valid-type]


class CallerCertificates(Values):
    """A second port of the gateway, where callers show certificates."""

    enabled: bool
    port: Port
    caConfigMap: str = Field(pattern=r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$")


class Access(Values):
    """Who is let in at the gateway."""

    issuerCaConfigMap: str = Field(pattern=r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$")
    certificates: CallerCertificates


class Gpu(Values):
    """Graphics processors of a pod."""

    enabled: bool
    resource: ResourceName
    count: int = Field(ge=1, le=16)


class TritonScaling(Values):
    """How the number of Triton's replicas follows the load."""

    mode: Literal["none", "keda", "hpa-queue", "hpa-cpu"]
    minReplicas: int = Field(ge=0, le=100)
    maxReplicas: int = Field(ge=1, le=100)
    concurrencyPerReplica: float = Field(gt=0)
    queueMilliseconds: float = Field(gt=0)
    cpuPercent: Percent
    wakeOnWaiting: int = Field(ge=0)
    scaleUpSeconds: int = Field(ge=0, le=3600)
    scaleDownSeconds: int = Field(ge=0, le=3600)
    pollSeconds: int = Field(ge=1, le=300)
    prometheus: str = Field(pattern=r"^https?://[^\s]+$")


class ModelCache(Values):
    """What Triton keeps on disk: engines that TensorRT built."""

    claim: str = Field(pattern=r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$")
    size: Quantity


class TritonValues(Placing):
    """The model server."""

    enabled: bool
    replicas: int = Field(ge=0, le=100)
    gpu: Gpu
    resources: Resources
    autoscaling: TritonScaling
    modelCache: ModelCache
    sharedMemory: Quantity
    readyTimeoutSeconds: int = Field(ge=10, le=7200)
    drainSeconds: int = Field(ge=0, le=3600)
    extraArgs: list[str]


class FaultTolerance(Values):
    """What keeps the records of Ray's head over its restart."""

    mode: Literal["none", "redis", "rocksdb"]
    redisAddress: str
    storage: Quantity


class RayHead(Placing):
    """Ray's head."""

    resources: Resources
    faultTolerance: FaultTolerance


class RayAutoscaler(Values):
    """Ray's own autoscaler."""

    enabled: bool
    idleSeconds: int = Field(ge=10, le=86400)
    upscaling: Literal["Default", "Conservative", "Aggressive"]
    resources: Resources


class RayGroup(Placing):
    """A group of Ray's workers that are alike."""

    name: Annotated[str, Field(pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$", max_length=40)]
    minReplicas: int = Field(ge=0, le=1000)
    maxReplicas: int = Field(ge=0, le=1000)
    cpus: int = Field(ge=1, le=512)
    memory: Quantity
    sharedMemory: Quantity
    scratch: Quantity
    gpus: int = Field(ge=0, le=16)
    gpuResource: ResourceName


class RayValues(Values):
    """The Ray cluster, made by KubeRay."""

    enabled: bool
    version: str = Field(pattern=r"^[0-9]+\.[0-9]+\.[0-9]+$")
    head: RayHead
    autoscaler: RayAutoscaler
    workerGroups: list[RayGroup] = Field(min_length=1)


class MlflowValues(Placing):
    """The MLflow server."""

    enabled: bool
    workers: int = Field(ge=1, le=16)
    prefix: str = Field(pattern=r"^[-a-zA-Z0-9_/.]+$")
    resources: Resources


class Migrations(Values):
    """The Job that raises the databases."""

    enabled: bool
    patienceSeconds: int = Field(ge=10, le=7200)
    resources: Resources


class Volume(Values):
    """A volume that is claimed."""

    size: Quantity
    storageClass: str


class Postgresql(Values):
    """The database."""

    mode: Literal["external", "bundled"]
    volume: Volume
    resources: Resources


class S3(Values):
    """The object store."""

    mode: Literal["external", "bundled"]
    endpoint: str = Field(pattern=r"^(https?://[^\s/]+)?$")
    region: str = Field(min_length=1)
    bucket: Annotated[str, Field(pattern=r"^[a-z0-9][-a-z0-9.]{1,61}[a-z0-9]$")]
    artifactPrefix: str = Field(pattern=r"^[-a-zA-Z0-9_]+$")
    repositoryPrefix: str = Field(pattern=r"^[-a-zA-Z0-9_]+$")
    credentials: Literal["secret", "workloadIdentity"]
    volume: Volume
    resources: Resources


class Backup(Values):
    """Copies of the databases."""

    enabled: bool
    schedule: str = Field(pattern=r"^(\S+\s+){4}\S+$")
    keep: int = Field(ge=1, le=1000)
    volume: Volume
    resources: Resources


class Issuer(Values):
    """A cert-manager issuer."""

    name: str
    kind: Literal["Issuer", "ClusterIssuer"]
    group: str


class Tls(Values):
    """TLS between Oteo's parts."""

    enabled: bool
    mutual: bool
    issuer: Issuer
    duration: Duration
    renewBefore: Duration


class ParentRef(Values):
    """A Gateway of the Gateway API."""

    name: Name
    namespace: str = ""
    sectionName: str = ""


class GrpcRoute(Values):
    """The route of a Gateway."""

    enabled: bool
    parentRefs: list[ParentRef]
    backendCaConfigMap: str


class Ingress(Values):
    """An Ingress."""

    enabled: bool
    className: str
    annotations: Labels
    tlsSecret: str
    issuer: Issuer


class Traffic(Values):
    """How calls come in."""

    hosts: list[Name]
    maxConnectionAgeSeconds: int = Field(ge=0, le=86400)
    grpcRoute: GrpcRoute
    ingress: Ingress
    tls: Tls


class Peer(Values):
    """Who may come in: pods of a namespace, by their labels."""

    namespaceLabels: Labels
    podLabels: Labels


class Outside(Values):
    """An address outside the cluster."""

    cidr: Cidr
    port: Port


class NetworkPolicies(Values):
    """Who may call whom."""

    enabled: bool
    callers: list[Peer]
    monitoring: list[Peer]
    operators: list[Peer]
    dns: list[Peer]
    database: list[Outside]
    s3: list[Outside]
    redis: list[Outside]
    issuer: list[Outside]
    kubernetesApi: list[Outside]
    downloads: list[Outside]


class PriorityClass(Values):
    """A priority class; where none is created, one of that name is used; no name: none."""

    name: str
    value: int = Field(ge=-1000000000, le=1000000000)


class Priorities(Values):
    """Who goes first where there is not room for all."""

    create: bool
    serving: PriorityClass
    training: PriorityClass


class Spread(Values):
    """How replicas are spread."""

    enabled: bool
    keys: list[str]
    whenUnsatisfiable: Literal["DoNotSchedule", "ScheduleAnyway"]


class Disruption(Values):
    """How many replicas may be away at a time."""

    enabled: bool
    maxUnavailable: int = Field(ge=1, le=100)


class PrePull(Placing):
    """Images brought to nodes before they are needed."""

    enabled: bool
    images: list[Literal["gateway", "augment", "automl", "translate", "mlflow", "ray", "triton"]] = Field(min_length=1)


class Monitors(Values):
    """ServiceMonitors of the Prometheus operator."""

    enabled: bool
    labels: Labels
    interval: Duration


class Rules(Values):
    """Alerts."""

    enabled: bool
    labels: Labels
    availability: float = Field(gt=0.5, lt=1)
    latencySeconds: Literal["0.05", "0.1", "0.25", "0.5", "1.0", "2.5", "5.0", "10.0"]
    latencyShare: float = Field(gt=0.5, lt=1)
    silentSeconds: int = Field(ge=60, le=604800)
    gpuMemoryShare: float = Field(gt=0.1, le=1)
    certificateDays: int = Field(ge=1, le=365)


class Dashboards(Values):
    """Grafana's dashboards."""

    enabled: bool
    labels: Labels


class Monitoring(Values):
    """What is seen of it."""

    metricsPort: Port
    serviceMonitors: Monitors
    rules: Rules
    dashboards: Dashboards


class Logging(Values):
    """Logs of the services."""

    level: Literal["debug", "info", "warning", "error"]


class PodIds(Values):
    """Users and groups of the processes."""

    user: int = Field(ge=1, le=4294967294)
    group: int = Field(ge=1, le=4294967294)


class ChartValues(Values):
    """All values of the chart ``oteo``."""

    model_config = ConfigDict(extra="forbid", title="Values of the chart oteo")

    nameOverride: str = Field(pattern=r"^([a-z]([-a-z0-9]*[a-z0-9])?)?$", max_length=40)
    clusterDomain: Name
    image: Image
    images: Images
    secrets: Secrets
    logging: Logging
    podIds: PodIds
    access: Access
    gateway: GatewayValues
    augment: AugmentValues
    automl: AutoMLValues
    translate: TranslateValues
    triton: TritonValues
    ray: RayValues
    mlflow: MlflowValues
    migrations: Migrations
    postgresql: Postgresql
    s3: S3
    backup: Backup
    traffic: Traffic
    networkPolicies: NetworkPolicies
    priorities: Priorities
    topologySpread: Spread
    disruptionBudgets: Disruption
    prePull: PrePull
    monitoring: Monitoring
    # Helm adds it to what it validates.
    global_: dict[str, Any] = Field(default={}, alias="global")


def schema() -> dict[str, Any]:
    """Give the JSON schema of the values."""
    found = ChartValues.model_json_schema()
    found["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    found["$comment"] = "Written by tools/chart_values.py from Pydantic models; do not edit."
    plain: dict[str, Any] = _plain(found)
    return plain


def _plain(node: Any, *, names: bool = False) -> Any:
    """Take out what only repeats the key: titles that Pydantic makes of names, and defaults, which values.yaml has."""
    if isinstance(node, dict):
        dropped = () if names else ("title", "default")
        return {
            key: _plain(value, names=key in ("properties", "$defs") and not names)
            for key, value in node.items()
            if key not in dropped or (key == "title" and value == "Values of the chart oteo")
        }
    return [_plain(item) for item in node] if isinstance(node, list) else node


def main() -> int:
    """Write the schema, or compare; give the exit status."""
    parser = argparse.ArgumentParser(description="Write the schema of the chart's values.")
    parser.add_argument("--check", action="store_true", help="say whether the file is up to date, and write nothing")
    text = json.dumps(schema(), indent=1) + "\n"
    if parser.parse_args().check:
        if SCHEMA.is_file() and SCHEMA.read_text() == text:
            return 0
        print(f"{SCHEMA} is not what tools/chart_values.py gives: run `make chart-schema`", file=sys.stderr)
        return 1
    SCHEMA.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
