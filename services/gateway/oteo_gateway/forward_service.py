"""Calls of the services behind the gateway, forwarded as bytes.

One generic handler looks a call up by its service's full name and hands it on without decoding a message: the caller's
deadline, metadata and cancellation go to the backend; the answer's messages, status, status details and trailing metadata
come back as they are. Streams move one message at a time, each awaited, so that a slow side slows the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import grpc
import structlog
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import DecodeError
from google.rpc import status_pb2

from oteo_core import tracing
from oteo_core.context import current
from oteo_core.errors import OteoError, Unavailable, from_status

log = structlog.get_logger(__name__)

STATUS_DETAILS = "grpc-status-details-bin"
RETRY_SECONDS = 1.0
# The hop's own: token, request id, caller (x-oteo-…) and place in the trace are set anew, and transport headers are not ours to copy.
_NOT_FORWARDED = frozenset(
    {"authorization", "user-agent", "content-type", "te", "host", "accept-encoding", "connection", "x-request-id"}
    | {tracing.TRACEPARENT, tracing.TRACESTATE}
)
# What gRPC itself says of a connection that broke, or of a server that ended before the call did.
_GONE = ("socket closed", "connection reset", "broken pipe", "failed to connect", "goaway", "ping timeout", "cancelling all calls")
_NOT_RETURNED = frozenset({"content-type", "date", "server"})

Metadata = tuple[tuple[str, str | bytes], ...]


@dataclass
class Backend:
    """A server behind the gateway and the persistent channel to it.

    Attributes
    ----------
    name
        What it is called in messages and metrics, such as ``automl``.
    address
        ``host:port``.
    channel
        Channel that lives as long as the gateway.
    credentials
        Metadata that calls bear there: the token.
    """

    name: str
    address: str
    channel: grpc.aio.Channel
    credentials: Metadata = ()
    _calls: dict[str, Any] = field(default_factory=dict, repr=False)

    def callable(self, kind: str, method: str) -> Any:
        """Give the multi-callable of a method, made once; ``kind`` is ``unary_unary``, ``unary_stream`` and so on."""
        found = self._calls.get(method)
        if found is None:
            found = self._calls[method] = getattr(self.channel, kind)(method)
        return found

    def away(self, error: grpc.aio.AioRpcError) -> bool:
        """Tell whether an error means that the server was not there, not that it answered UNAVAILABLE itself."""
        if error.code() is not grpc.StatusCode.UNAVAILABLE:
            return False
        if any(key == STATUS_DETAILS for key, _ in error.trailing_metadata() or ()):
            return False
        if self.channel.get_state() is not grpc.ChannelConnectivity.READY:
            return True
        # The channel may be connected again by the time we look.
        text = (error.details() or "").lower()
        return any(sign in text for sign in _GONE)

    def away_error(self) -> OteoError:
        """Give the error that a caller sees while this backend is away."""
        return Unavailable(
            f"The service {self.name} does not answer at the moment; try again shortly.",
            reason="SERVICE_UNAVAILABLE",
            metadata={"service": self.name},
            retry_after=RETRY_SECONDS,
        )


class Router(Protocol):
    """Chooses the backend of a call and takes notice of those that are away."""

    def candidates(self, method: str, request: bytes | None) -> Sequence[Backend]:
        """Give backends in the order in which to try them; later ones only where nothing was answered yet.

        Parameters
        ----------
        method
            Full path, ``/package.Service/Method``.
        request
            The request's bytes; None where requests are a stream.
        """

    def failed(self, backend: Backend) -> None:
        """Take notice that a backend was away."""


class OneBackend:
    """The router of a service that has one address."""

    def __init__(self, backend: Backend) -> None:
        self._backend = (backend,)

    def candidates(self, method: str, request: bytes | None) -> Sequence[Backend]:
        """Give the one backend."""
        return self._backend

    def failed(self, backend: Backend) -> None:
        """Leave it at that: the channel connects again by itself."""


def forwarded_metadata(context: grpc.aio.ServicerContext[Any, Any], backend: Backend) -> Metadata:
    """Give the metadata to send to a backend: the caller's, with the request id and the identity that this call runs under."""
    kept = [
        (key, value)
        for key, value in context.invocation_metadata() or ()
        if key not in _NOT_FORWARDED and not key.startswith(("grpc-", ":", "x-oteo-"))
    ]
    call = current()
    return (*kept, *backend.credentials, *tracing.headers(), ("x-request-id", call.request_id), ("x-oteo-caller", call.caller))


def returned_metadata(metadata: Iterable[tuple[str, str | bytes]] | None) -> Metadata:
    """Give the part of a backend's metadata that goes back to the caller."""
    return tuple(
        (key, value) for key, value in metadata or () if key not in _NOT_RETURNED and (not key.startswith("grpc-") or key == STATUS_DETAILS)
    )


def _merge_trailing(context: grpc.aio.ServicerContext[Any, Any], extra: Metadata) -> Metadata:
    own = tuple(context.trailing_metadata() or ())
    names = {key for key, _ in extra}
    return tuple((key, value) for key, value in own if key not in names) + extra


async def abort_like(context: grpc.aio.ServicerContext[Any, Any], error: grpc.aio.AioRpcError) -> None:
    """End a call with a backend's status, details and trailing metadata, unchanged."""
    settle = current().settle
    if settle is not None:
        await settle(error.code().name, _reason(error))
    trailing = _merge_trailing(context, returned_metadata(error.trailing_metadata()))
    await context.abort(error.code(), error.details() or "", trailing)


def _reason(error: grpc.aio.AioRpcError) -> str:
    """Give the reason that a backend's error carries; empty without one."""
    for key, value in error.trailing_metadata() or ():
        if key == STATUS_DETAILS and isinstance(value, bytes):
            try:
                return from_status(status_pb2.Status.FromString(value)).reason
            except DecodeError:
                return ""
    return ""


class Proxy:
    """Handlers that forward one service's calls as bytes.

    Parameters
    ----------
    router
        Chooses the backend of each call.
    guard
        Called with the method's path and, for unary requests, the bytes; raises an `OteoError` for what must not pass.
    """

    def __init__(self, router: Router, guard: Callable[[str, bytes | None], None] | None = None) -> None:
        self._router = router
        self._guard = guard

    def handler(self, method: str, *, client_streaming: bool, server_streaming: bool) -> grpc.RpcMethodHandler[Any, Any]:
        """Make the handler of one method, ``/package.Service/Method``; messages are bytes on both sides."""
        if client_streaming:
            if server_streaming:
                return grpc.stream_stream_rpc_method_handler(self._streaming(method, "stream_stream"))
            return grpc.stream_unary_rpc_method_handler(self._stream_unary(method))
        if server_streaming:
            return grpc.unary_stream_rpc_method_handler(self._streaming(method, "unary_stream"))
        return grpc.unary_unary_rpc_method_handler(self._unary_unary(method))

    def _check(self, method: str, request: bytes | None) -> Sequence[Backend]:
        if self._guard is not None:
            self._guard(method, request)
        return self._router.candidates(method, request)

    def _unary_unary(self, method: str) -> Callable[..., Any]:
        async def forward(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
            backends = self._check(method, request)
            for number, backend in enumerate(backends, 1):
                call = backend.callable("unary_unary", method)(
                    request, timeout=current().remaining(), metadata=forwarded_metadata(context, backend)
                )
                try:
                    response: bytes = await call
                except grpc.aio.AioRpcError as error:
                    if not backend.away(error):
                        await abort_like(context, error)
                    self._router.failed(backend)
                    if number == len(backends):
                        raise backend.away_error() from error
                    continue
                await _pass_metadata(call, context)
                return response
            raise AssertionError("a router gives at least one backend")

        return forward

    def _stream_unary(self, method: str) -> Callable[..., Any]:
        async def forward(requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
            backend = self._check(method, None)[0]
            call = backend.callable("stream_unary", method)(timeout=current().remaining(), metadata=forwarded_metadata(context, backend))
            pump = asyncio.create_task(_pump(requests, call))
            try:
                response: bytes = await call
            except grpc.aio.AioRpcError as error:
                await self._stream_error(backend, error, context)
                raise
            finally:
                await _end(pump, call)
            await _pass_metadata(call, context)
            return response

        return forward

    def _streaming(self, method: str, kind: str) -> Callable[..., Any]:
        async def forward(requests: Any, context: grpc.aio.ServicerContext[bytes, bytes]) -> AsyncIterator[bytes]:
            unary = requests if kind == "unary_stream" else None
            backend = self._check(method, unary)[0]
            invoke = backend.callable(kind, method)
            options = {"timeout": current().remaining(), "metadata": forwarded_metadata(context, backend)}
            call = invoke(**options) if unary is None else invoke(unary, **options)
            pump = asyncio.create_task(_pump(requests, call)) if unary is None else None
            try:
                async for response in call:
                    yield response
                await _pass_metadata(call, context)
            except grpc.aio.AioRpcError as error:
                await self._stream_error(backend, error, context)
            finally:
                await _end(pump, call)

        return forward

    async def _stream_error(self, backend: Backend, error: grpc.aio.AioRpcError, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        if backend.away(error):
            self._router.failed(backend)
            raise backend.away_error() from error
        await abort_like(context, error)


async def _pass_metadata(call: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:
    """Copy the trailing metadata of an answered call; the initial metadata of our services carry only the request id."""
    trailing = returned_metadata(await call.trailing_metadata())
    if trailing:
        context.set_trailing_metadata(_merge_trailing(context, trailing))


async def _pump(requests: AsyncIterator[bytes], call: Any) -> None:
    """Move a caller's messages to the backend, each when there is room for it."""
    try:
        async for request in requests:
            await call.write(request)
        await call.done_writing()
    except asyncio.InvalidStateError:
        # The backend ended the call before it had read everything: its status says why, and the reader reports that.
        log.debug("forwarded_stream_ended_early")
    except grpc.aio.AioRpcError:
        # The same end, seen by the writer; the reader raises it.
        log.debug("forwarded_stream_failed")


async def _end(pump: asyncio.Task[None] | None, call: Any) -> None:
    """Leave nothing running: stop the pump, and cancel the backend's call if it is not over."""
    call.cancel()
    if pump is not None and not pump.done():
        pump.cancel()
        await asyncio.wait([pump])
    if pump is not None and not pump.cancelled() and pump.exception() is not None:
        log.debug("forwarded_stream_reader_failed", error=str(pump.exception()))


class ForwardingHandler(grpc.GenericRpcHandler):
    """The generic handler of all services behind the gateway.

    Parameters
    ----------
    services
        By full service name: its descriptor (which of its methods stream) and the proxy that forwards them. A method that
        the descriptor does not know, because the backend is newer, is forwarded as streams, which on the wire every call is.
    """

    def __init__(self, services: Mapping[str, tuple[ServiceDescriptor, Proxy]]) -> None:
        self._services = dict(services)
        self._handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """Full names of the services, for health and reflection."""
        return tuple(self._services)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Find the handler of a call; None if the service is not one of ours."""
        path = str(handler_call_details.method)
        found = self._handlers.get(path)
        if found is not None:
            return found
        name, _, method = path.lstrip("/").rpartition("/")
        service = self._services.get(name)
        if service is None:
            return None
        descriptor, proxy = service
        known = descriptor.methods_by_name.get(method)
        if known is None:
            # Not kept: anybody could fill the table with made-up names.
            return proxy.handler(path, client_streaming=True, server_streaming=True)
        found = proxy.handler(path, client_streaming=bool(known.client_streaming), server_streaming=bool(known.server_streaming))
        self._handlers[path] = found
        return found
