"""How calls come in, and who may call whom."""

from __future__ import annotations

from pydantic import Field

from chart_models.common import Cidr, Duration, Issuer, Labels, Name, Port, Values


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
    collector: list[Outside]
    kubernetesApi: list[Outside]
    downloads: list[Outside]
