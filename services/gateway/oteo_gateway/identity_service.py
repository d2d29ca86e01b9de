"""``IdentityService``: callers learn whom the gateway takes them for."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc

from oteo_core.context import current
from oteo_gateway.access.door import AccessDoor
from oteo_gateway.access.limits import NONE
from oteo_gateway.access.table import TABLE
from oteo_protos.gateway.v1 import identity_pb2, identity_pb2_grpc

_KINDS = {
    "part": identity_pb2.WhoAmIResponse.KIND_PART,
    "token": identity_pb2.WhoAmIResponse.KIND_TOKEN,
    "oidc": identity_pb2.WhoAmIResponse.KIND_OIDC,
    "certificate": identity_pb2.WhoAmIResponse.KIND_CERTIFICATE,
    "anonymous": identity_pb2.WhoAmIResponse.KIND_ANONYMOUS,
}


class IdentityService(identity_pb2_grpc.IdentityServiceServicer):
    """Identity over gRPC.

    Parameters
    ----------
    door
        Knows the limits and what is used of them.
    """

    def __init__(self, door: AccessDoor) -> None:
        self._door = door

    async def WhoAmI(self, request: identity_pb2.WhoAmIRequest, context: grpc.aio.ServicerContext[Any, Any]) -> identity_pb2.WhoAmIResponse:
        """Give the caller's name, roles, limits and what is used of them."""
        identity = current().identity
        known = identity.kind in ("part", "anonymous")
        limits = NONE if known else self._door.limits(identity)
        response = identity_pb2.WhoAmIResponse(
            name=identity.name,
            kind=_KINDS[identity.kind],
            roles=sorted(identity.roles),
            methods=sorted(
                method.lstrip("/").replace("/", ".")
                for method, row in TABLE.items()
                if known or row.roles is None or row.roles & identity.roles
            ),
        )
        if identity.expires is not None:
            response.expire_time.FromMilliseconds(int(identity.expires * 1000))
        used: dict[str, int] = {"concurrent_calls": self._door.gauge.calls(identity.name)} if not known else {}
        if limits.images_per_day:
            used["images_per_day"] = await self._door.quotas.used(identity.name)
        if limits.running_operations:
            used["running_operations"] = await asyncio.to_thread(self._door.running.running, identity.name)
        for name in type(limits).model_fields:
            response.allowances.add(name=name, limit=int(getattr(limits, name)), used=used.get(name))
        return response
