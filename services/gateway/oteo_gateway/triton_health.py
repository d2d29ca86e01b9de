"""Which Triton replicas are there: asked in a short period, and told by calls that fail."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import grpc
import structlog

from oteo_gateway.forward_service import Backend

log = structlog.get_logger(__name__)

_SERVER_READY = "/inference.GRPCInferenceService/ServerReady"
# ServerReadyResponse(ready=True), serialised: field 1, a varint of 1.
_READY = b"\x08\x01"


class TritonHealth:
    """The replicas that answer.

    Parameters
    ----------
    replicas
        All of them.
    period
        Seconds between two rounds.
    changed
        Called when a replica comes or goes.
    """

    def __init__(self, replicas: Sequence[Backend], *, period: float, changed: Callable[[], None] = lambda: None) -> None:
        self._replicas = tuple(replicas)
        self._period = period
        self._changed = changed
        # Before the first round all are taken to be there: a call finds out.
        self._healthy = frozenset(replica.address for replica in self._replicas)

    def replace(self, replicas: Sequence[Backend]) -> None:
        """Ask these from now on; one that is new is taken to be away until it has answered."""
        self._replicas = tuple(replicas)
        self._set(self._healthy & {replica.address for replica in self._replicas})

    def healthy(self) -> frozenset[str]:
        """Give the addresses of the replicas that answer."""
        return self._healthy

    def failed(self, address: str) -> None:
        """Take a replica out until it answers again."""
        self._set(self._healthy - {address})

    def _set(self, healthy: frozenset[str]) -> None:
        if healthy == self._healthy:
            return
        log.info("triton_replicas", healthy=sorted(healthy), away=sorted({replica.address for replica in self._replicas} - healthy))
        self._healthy = healthy
        self._changed()

    async def run(self) -> None:
        """Ask again and again, until cancelled."""
        while True:
            asked = self._replicas
            answers = await asyncio.gather(*(self._ask(replica) for replica in asked))
            ready = {replica.address for replica, answer in zip(asked, answers, strict=True) if answer}
            self._set(frozenset(ready & {replica.address for replica in self._replicas}))
            await asyncio.sleep(self._period)

    async def _ask(self, replica: Backend) -> bool:
        try:
            answer: bytes = await replica.callable("unary_unary", _SERVER_READY)(b"", timeout=max(1.0, self._period))
        except grpc.aio.AioRpcError:
            return False
        return answer == _READY
