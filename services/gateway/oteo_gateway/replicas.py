"""The Triton replicas that there are: those whose addresses the settings name, and all that DNS knows of a name.

In a cluster the model server is scaled by others, so its replicas are looked up again and again: ``dns:///triton:8001`` is every address of a headless
Service. A replica that DNS does not name any more is forgotten; what still runs on its channel is given time to end.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import structlog

from oteo_core.errors import InvalidArgument
from oteo_gateway.deployments.replica import ReplicaKeeper
from oteo_gateway.forward_service import Backend
from oteo_gateway.triton_control import TritonControl

log = structlog.get_logger(__name__)

_SCHEME = "dns:///"
_CLOSE_SECONDS = 60.0
Resolve = Callable[[str, int], Awaitable[list[str]]]


@dataclass(frozen=True)
class Replica:
    """One replica: its address and what belongs to it."""

    address: str
    backend: Backend
    control: TritonControl
    keeper: ReplicaKeeper


async def resolve(host: str, port: int) -> list[str]:
    """Give the addresses of a name, ``host:port`` each, in a fixed order; none where DNS says that the name has none.

    Raises
    ------
    OSError
        DNS does not answer.
    """
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        if error.errno in (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)):
            return []
        raise
    return sorted({f"[{entry[4][0]}]:{port}" if entry[0] is socket.AF_INET6 else f"{entry[4][0]}:{port}" for entry in found})


class Replicas:
    """The replicas, kept up to date.

    Parameters
    ----------
    urls
        ``host:port``, or ``dns:///name:port`` for all addresses of a name.
    make
        Makes what belongs to an address. Called inside the event loop.
    changed
        Called with all replicas whenever they change.
    period
        Seconds between two questions to DNS.
    resolver
        Answers them.

    Raises
    ------
    InvalidArgument
        ``BAD_ADDRESS``: a name without a port.
    """

    def __init__(
        self,
        urls: Sequence[str],
        make: Callable[[str], Replica],
        changed: Callable[[Sequence[Replica]], None],
        *,
        period: float,
        resolver: Resolve = resolve,
    ) -> None:
        self._fixed = tuple(url for url in urls if not url.startswith("dns:"))
        self._names = tuple(_split(url) for url in urls if url.startswith("dns:"))
        self._known: dict[tuple[str, int], list[str]] = {name: [] for name in self._names}
        self._make = make
        self._changed = changed
        self._period = period
        self._resolve = resolver
        self._replicas: dict[str, Replica] = {address: make(address) for address in self._fixed}
        self._closing: set[asyncio.Task[None]] = set()

    def current(self) -> tuple[Replica, ...]:
        """Give the replicas."""
        return tuple(self._replicas.values())

    async def refresh(self) -> None:
        """Ask DNS once; a name that it does not answer for keeps the addresses that it had."""
        for name in self._names:
            try:
                self._known[name] = await self._resolve(*name)
            except OSError as error:
                log.warning("triton_replicas_not_resolved", name=name[0], error=str(error))
        wanted = dict.fromkeys([*self._fixed, *(address for name in self._names for address in self._known[name])])
        if list(wanted) == list(self._replicas):
            return
        log.info("triton_replicas_known", addresses=list(wanted))
        gone = [replica for address, replica in self._replicas.items() if address not in wanted]
        self._replicas = {address: self._replicas.get(address) or self._make(address) for address in wanted}
        self._changed(self.current())
        for replica in gone:
            task = asyncio.create_task(_close(replica, _CLOSE_SECONDS))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def run(self) -> None:
        """Ask again and again, until cancelled; returns at once where no name is to be asked for."""
        while self._names:
            await self.refresh()
            await asyncio.sleep(self._period)

    async def close(self) -> None:
        """Close all channels."""
        for task in self._closing:
            task.cancel()
        await asyncio.gather(*self._closing, return_exceptions=True)
        for replica in self._replicas.values():
            await replica.backend.channel.close()
            replica.control.close()


async def _close(replica: Replica, seconds: float) -> None:
    try:
        # Calls may be on their way there from before the change was known.
        await asyncio.sleep(seconds)
    finally:
        await replica.backend.channel.close()
        replica.control.close()


def _split(url: str) -> tuple[str, int]:
    host, _, port = url.removeprefix(_SCHEME).rpartition(":")
    if not url.startswith(_SCHEME) or not host or not port.isdigit():
        raise InvalidArgument(f"{url} is no address of Triton replicas: give dns:///NAME:PORT", reason="BAD_ADDRESS", field="triton_urls")
    return host, int(port)
