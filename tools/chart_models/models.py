"""Triton, Ray and MLflow."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from chart_models.common import Percent, Placing, Quantity, ResourceName, Resources, Values


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


class TritonTraces(Values):
    """Triton's own part of traces."""

    url: str = Field(pattern=r"^(https?://[^\s,]+)?$")
    rate: int = Field(ge=0, le=1_000_000)


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
    traces: TritonTraces
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
