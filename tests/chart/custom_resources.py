"""What custom resources are checked against.

Those of KEDA, cert-manager, the Gateway API and the Prometheus operator: the projects' own types and schemas, which ``make chart-tools`` fetches. KubeRay
publishes none in a package, so its RayCluster is a closed model here, written from its API reference (1.7), with the rules that its operator applies beside.
What KEDA's schema leaves open, the metadata of triggers, is a model here too.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

from charting import ROOT, Object
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

SCHEMAS = ROOT / ".build/chart-tools/custom-resources"
PUBLISHED = ("cert-manager.io", "gateway.networking.k8s.io", "keda.sh", "monitoring.coreos.com")
"""Groups whose projects' types and schemas are packages."""


def is_published(found: Object) -> bool:
    """Tell whether an object's own project publishes its schema."""
    return str(found["apiVersion"]).partition("/")[0] in PUBLISHED


def complaints(objects: Sequence[Object]) -> list[str]:
    """Give what the schemas of their projects say against custom resources: fields that are not known, values of no right form, what is missing."""
    assert (SCHEMAS / "there.txt").is_file(), f"the schemas of custom resources are not in {SCHEMAS}: run `make chart-tools`"
    script = Path(__file__).with_suffix(".mjs")
    done = subprocess.run(["node", str(script), str(SCHEMAS)], input=json.dumps(objects), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: list[str] = json.loads(done.stdout)
    return found


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
    """A cluster of Ray, with what KubeRay's operator refuses besides what its schema does."""

    apiVersion: Literal["ray.io/v1"]
    kind: Literal["RayCluster"]
    metadata: Meta
    spec: RayClusterSpec

    @model_validator(mode="after")
    def _as_the_operator_says(self) -> Self:
        # Longer ones do not leave room for the names of its Services.
        assert len(self.metadata.name) <= 53, self.metadata.name
        spec = self.spec
        assert tuple(int(part) for part in spec.rayVersion.split(".")) >= (2, 52, 0), "an older Ray knows no tokens"
        if spec.enableInTreeAutoscaling:
            templates = [spec.headGroupSpec.template, *(group.template for group in spec.workerGroupSpecs)]
            # The autoscaler's second version replaces pods, it does not restart them.
            assert {template["spec"]["restartPolicy"] for template in templates} == {"Never"}
        for group in spec.workerGroupSpecs:
            assert 0 <= group.minReplicas <= group.maxReplicas, group.groupName
        variables = {variable["name"] for variable in spec.headGroupSpec.template["spec"]["containers"][0].get("env", [])}
        assert not {"RAY_REDIS_ADDRESS", "REDIS_PASSWORD", "REDIS_USERNAME", "RAY_enable_autoscaler_v2"} & variables
        if options := spec.gcsFaultToleranceOptions:
            assert bool(options.redisAddress) is (options.backend != "rocksdb"), "each backend has its own fields"
            assert (options.storage is not None) is (options.backend == "rocksdb")
        return self


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


TRIGGERS = TypeAdapter(list[Trigger | CpuTrigger])
