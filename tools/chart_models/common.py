"""What several parts of the values are made of: forms of texts, resources, where pods run."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


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


class SecretKey(Values):
    """A key of a Secret."""

    name: Name
    key: KeyName


class Volume(Values):
    """A volume that is claimed."""

    size: Quantity
    storageClass: str


class Issuer(Values):
    """A cert-manager issuer."""

    name: str
    kind: Literal["Issuer", "ClusterIssuer"]
    group: str
