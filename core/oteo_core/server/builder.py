"""Build a gRPC server and run it until it is told to stop."""

from __future__ import annotations

import asyncio
import gc
import inspect
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import uvloop
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from oteo_core import telemetry, tracing
from oteo_core.access import Crowd, Door, SharedTokenDoor
from oteo_core.certificates import CertificateFiles, server_credentials
from oteo_core.errors import Unavailable
from oteo_core.security import required_token
from oteo_core.server.calls import CallInterceptor
from oteo_core.server.channels import server_options
from oteo_core.server.hooks import CallHook
from oteo_core.settings import CoreSettings

LOG = telemetry.logger("oteo.server")
Register = Callable[[grpc.aio.Server], Sequence[str]]
Hook = Callable[[], Any]


@dataclass(frozen=True)
class TlsAddress:
    """One more address of a server, which speaks TLS with a certificate of its own (PEM files).

    Attributes
    ----------
    listen
        ``host:port``.
    certificate, key
        Shown to callers.
    client_ca
        What callers' certificates are checked against, which they must then show; None: they are asked for none.
    """

    listen: str
    certificate: Path
    key: Path
    client_ca: Path | None = None


@dataclass
class Server:
    """A server that is built, not yet started; ``port`` is the one that it listens on."""

    grpc: grpc.aio.Server
    port: int
    health: health.aio.HealthServicer
    names: tuple[str, ...]
    pool: ThreadPoolExecutor

    async def start(self) -> None:
        """Answer calls, and say so to health checks."""
        await self.grpc.start()
        for name in ("", *self.names):
            await self.health.set(name, health_pb2.HealthCheckResponse.SERVING)

    async def stop(self, grace: float) -> None:
        """Say NOT_SERVING, take no new calls, let those in flight end within ``grace`` seconds."""
        await self.health.enter_graceful_shutdown()
        await self.grpc.stop(grace)
        self.pool.shutdown(wait=False, cancel_futures=True)


def build_server(
    settings: CoreSettings,
    *,
    service: str,
    register: Register,
    generic_handlers: Sequence[grpc.GenericRpcHandler] = (),
    listen: str = "",
    door: Door | None = None,
    also: Sequence[TlsAddress] = (),
    hook: CallHook | None = None,
    crowd: Crowd | None = None,
) -> Server:
    """Build a server with everything that each of Oteo's has: token, TLS, validation, health, reflection.

    Parameters
    ----------
    settings
        Address, token, TLS and limits.
    service
        Short name: ``"augment"``.
    register
        Adds the servicers and gives their full names, for health and reflection.
    generic_handlers
        Handlers for methods that no servicer has, such as those that forward bytes.
    listen
        ``host:port``; empty: the settings'; port 0: a free one.
    door
        Who is answered; None: who bears the shared token.
    also
        More addresses, for callers from outside.
    hook
        Told of every call.
    crowd
        Knows what there is no room for.

    Raises
    ------
    Unavailable
        The address is taken.
    """
    pool = ThreadPoolExecutor(settings.threads, thread_name_prefix="handler")
    server = grpc.aio.server(
        interceptors=[CallInterceptor(door or SharedTokenDoor(required_token(settings)), pool, hook, crowd)],
        options=server_options(settings),
    )
    names = tuple(register(server))
    checks = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    reflection.enable_server_reflection((*names, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    if generic_handlers:
        server.add_generic_rpc_handlers(tuple(generic_handlers))
    address = listen or settings.listen or getattr(settings, f"{service}_address")
    credentials = server_credentials(settings)
    port = _listen(server, address, credentials)
    for more in also:
        _listen(server, more.listen, CertificateFiles(more.certificate, more.key, more.client_ca).credentials())
    return Server(server, port, checks, names, pool)


def _listen(server: grpc.aio.Server, address: str, credentials: grpc.ServerCredentials | None) -> int:
    try:
        port = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    except RuntimeError:
        port = 0
    if port == 0:
        raise Unavailable(f"cannot listen on {address}: the port is taken or the address is not this machine's", reason="ADDRESS_IN_USE")
    return int(port)


async def _call(hooks: Sequence[Hook]) -> None:
    for hook in hooks:
        result = hook()
        if inspect.isawaitable(result):
            await result


async def _run(
    settings: CoreSettings,
    service: str,
    register: Register,
    on_start: Sequence[Hook],
    on_stop: Sequence[Hook],
    handlers: Sequence[Any],
    door: Door | None,
    also: Sequence[TlsAddress],
    hook: CallHook | None,
    crowd: Crowd | None,
) -> None:
    server = build_server(
        settings, service=service, register=register, generic_handlers=handlers, door=door, also=also, hook=hook, crowd=crowd
    )
    # On loopback where the calls are, else where a scraper reaches it.
    telemetry.serve_metrics(
        settings.metrics_port, (settings.listen or getattr(settings, f"{service}_address")).rpartition(":")[0].strip("[]")
    )
    await _call(on_start)
    await server.start()
    # What there is now stays to the end: the collector need not look through it again and again while calls are answered, nor when the interpreter ends,
    # which took a second or two out of the grace that a cluster gives.
    gc.collect()
    gc.freeze()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    # After on_start: a library that is started there may set handlers of its own.
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop.set)
    LOG.info("serving", port=server.port, services=list(server.names), tls=settings.tls_cert is not None)
    await stop.wait()
    LOG.info("draining", seconds=settings.drain_seconds)
    await server.stop(settings.drain_seconds)
    await _call(on_stop)
    await asyncio.to_thread(tracing.end_tracing)
    LOG.info("stopped")


def serve(
    settings: CoreSettings,
    *,
    service: str,
    register: Register,
    on_start: Sequence[Hook] = (),
    on_stop: Sequence[Hook] = (),
    generic_handlers: Sequence[grpc.GenericRpcHandler] = (),
    door: Door | None = None,
    also: Sequence[TlsAddress] = (),
    hook: CallHook | None = None,
    crowd: Crowd | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, then drain. ``register``, ``on_start`` and ``on_stop`` (plain or coroutine functions) run inside the event loop.

    `build_server` says what ``door``, ``also``, ``hook`` and ``crowd`` are.
    """
    telemetry.configure_logging(settings, service)
    tracing.configure_tracing(settings, service)
    uvloop.run(_run(settings, service, register, on_start, on_stop, generic_handlers, door, also, hook, crowd))
