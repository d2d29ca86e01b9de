"""Images, and what the cluster does for all parts: priorities, spreading, pre-pulling, monitoring."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from chart_models.common import Duration, Labels, Name, Placing, Port, Values


class Image(Values):
    """Where Oteo's images come from."""

    registry: str = Field(default="", pattern=r"^([a-zA-Z0-9][-a-zA-Z0-9.:/_]*[a-zA-Z0-9])?$")
    tag: str = Field(default="", pattern=r"^[-._a-zA-Z0-9]*$")
    pullPolicy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    pullSecrets: list[Name] = Field(default=[])


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
