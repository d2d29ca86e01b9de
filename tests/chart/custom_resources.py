"""The custom resources that the chart makes, as far as it uses them: a field that is not written here is refused.

Written from the projects' API references: KubeRay 1.7 (``ray.io/v1``), KEDA 2 (``keda.sh/v1alpha1``), Gateway API 1.4, cert-manager 1, Prometheus operator.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Meta(Closed):
    name: str = Field(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", max_length=63)
    labels: dict[str, str]
    annotations: dict[str, str] = {}


class Selector(Closed):
    matchLabels: dict[str, str]


class SecretRef(Closed):
    name: str
    key: str


class From(Closed):
    secretKeyRef: SecretRef


class Password(Closed):
    valueFrom: From


class GcsStorage(Closed):
    size: str


class GcsOptions(Closed):
    redisAddress: str = ""
    redisPassword: Password | None = None
    backend: Literal["rocksdb"] | None = None
    storage: GcsStorage | None = None


class AuthOptions(Closed):
    mode: Literal["token"]
    secretName: str


class AutoscalerOptions(Closed):
    version: Literal["v2"]
    idleTimeoutSeconds: int
    upscalingMode: Literal["Default", "Conservative", "Aggressive"]
    imagePullPolicy: str
    resources: dict[str, dict[str, str]]
    securityContext: dict[str, Any]
    volumeMounts: list[dict[str, str]]


class HeadGroup(Closed):
    serviceType: Literal["ClusterIP"]
    rayStartParams: dict[str, str]
    template: dict[str, Any]


class WorkerGroup(Closed):
    groupName: str
    replicas: int | None = None
    minReplicas: int
    maxReplicas: int
    rayStartParams: dict[str, str]
    template: dict[str, Any]


class RayClusterSpec(Closed):
    rayVersion: str
    authOptions: AuthOptions
    gcsFaultToleranceOptions: GcsOptions | None = None
    enableInTreeAutoscaling: bool
    autoscalerOptions: AutoscalerOptions | None = None
    headGroupSpec: HeadGroup
    workerGroupSpecs: list[WorkerGroup]


class RayCluster(Closed):
    apiVersion: Literal["ray.io/v1"]
    kind: Literal["RayCluster"]
    metadata: Meta
    spec: RayClusterSpec


class Target(Closed):
    apiVersion: str
    kind: str
    name: str


class PrometheusTrigger(Closed):
    serverAddress: str
    query: str
    threshold: str = Field(pattern=r"^[0-9]+(\.[0-9]+)?$")
    activationThreshold: str = Field(default="0", pattern=r"^[0-9]+(\.[0-9]+)?$")


class Trigger(Closed):
    type: Literal["prometheus"]
    name: str
    metricType: Literal["AverageValue"]
    metadata: PrometheusTrigger


class Utilization(Closed):
    value: str = Field(pattern=r"^[0-9]+$")


class CpuTrigger(Closed):
    """KEDA's "CPU" scaler, of KEDA 2.10 and later without `type` in its metadata."""

    type: Literal["cpu"]
    metricType: Literal["Utilization"]
    metadata: Utilization


class HpaConfig(Closed):
    behavior: dict[str, Any]


class Advanced(Closed):
    horizontalPodAutoscalerConfig: HpaConfig


class ScaledObjectSpec(Closed):
    scaleTargetRef: Target
    minReplicaCount: int
    maxReplicaCount: int
    pollingInterval: int
    cooldownPeriod: int
    advanced: Advanced
    triggers: list[Trigger | CpuTrigger] = Field(min_length=1)


class ScaledObject(Closed):
    apiVersion: Literal["keda.sh/v1alpha1"]
    kind: Literal["ScaledObject"]
    metadata: Meta
    spec: ScaledObjectSpec


class Parent(Closed):
    name: str
    namespace: str | None = None
    sectionName: str | None = None


class Backend(Closed):
    name: str
    port: int


class RouteRule(Closed):
    backendRefs: list[Backend]


class RouteSpec(Closed):
    parentRefs: list[Parent] = Field(min_length=1)
    hostnames: list[str] = []
    rules: list[RouteRule]


class GRPCRoute(Closed):
    apiVersion: Literal["gateway.networking.k8s.io/v1"]
    kind: Literal["GRPCRoute"]
    metadata: Meta
    spec: RouteSpec


class Reference(Closed):
    group: str
    kind: str
    name: str


class TlsValidation(Closed):
    hostname: str
    caCertificateRefs: list[Reference]


class BackendTlsSpec(Closed):
    targetRefs: list[Reference]
    validation: TlsValidation


class BackendTLSPolicy(Closed):
    apiVersion: Literal["gateway.networking.k8s.io/v1"]
    kind: Literal["BackendTLSPolicy"]
    metadata: Meta
    spec: BackendTlsSpec


class PrivateKey(Closed):
    algorithm: Literal["ECDSA", "RSA", "Ed25519"]
    size: int
    rotationPolicy: Literal["Always", "Never"]


class CertificateSpec(Closed):
    secretName: str
    duration: str | None = None
    renewBefore: str | None = None
    privateKey: PrivateKey | None = None
    usages: list[Literal["server auth", "client auth"]] = []
    dnsNames: list[str] = Field(min_length=1)
    issuerRef: Reference


class Certificate(Closed):
    apiVersion: Literal["cert-manager.io/v1"]
    kind: Literal["Certificate"]
    metadata: Meta
    spec: CertificateSpec


class Endpoint(Closed):
    port: str
    interval: str


class ServiceMonitorSpec(Closed):
    selector: Selector
    targetLabels: list[str]
    endpoints: list[Endpoint]


class ServiceMonitor(Closed):
    apiVersion: Literal["monitoring.coreos.com/v1"]
    kind: Literal["ServiceMonitor"]
    metadata: Meta
    spec: ServiceMonitorSpec


class PodMonitorSpec(Closed):
    selector: Selector
    podMetricsEndpoints: list[Endpoint]


class PodMonitor(Closed):
    apiVersion: Literal["monitoring.coreos.com/v1"]
    kind: Literal["PodMonitor"]
    metadata: Meta
    spec: PodMonitorSpec


class Rule(Closed):
    model_config = ConfigDict(extra="forbid", strict=True, populate_by_name=True)

    record: str | None = None
    alert: str | None = None
    expr: str
    for_: str | None = Field(default=None, alias="for")
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class RuleGroup(Closed):
    name: str
    rules: list[Rule]


class RuleSpec(Closed):
    groups: list[RuleGroup]


class PrometheusRule(Closed):
    apiVersion: Literal["monitoring.coreos.com/v1"]
    kind: Literal["PrometheusRule"]
    metadata: Meta
    spec: RuleSpec


KINDS: dict[str, type[BaseModel]] = {
    kind.__name__: kind
    for kind in (RayCluster, ScaledObject, GRPCRoute, BackendTLSPolicy, Certificate, ServiceMonitor, PodMonitor, PrometheusRule)
}
