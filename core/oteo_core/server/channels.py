"""Channels to other services: token, TLS, limits, keep-alive."""

from __future__ import annotations

from typing import Any

import grpc

from oteo_core import tracing
from oteo_core.certificates import channel_credentials
from oteo_core.context import current
from oteo_core.security import bearer
from oteo_core.settings import CoreSettings

_MOST_METADATA = 24 * 1024


def options(settings: CoreSettings) -> list[tuple[str, Any]]:
    """Give the options of channels and servers."""
    return [
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_send_message_length", settings.max_message_bytes),
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.enable_http_proxy", 0),
    ]


def server_options(settings: CoreSettings) -> list[tuple[str, Any]]:
    """Give the options of servers."""
    chosen = [
        *options(settings),
        ("grpc.so_reuseport", int(settings.reuse_port)),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.max_concurrent_streams", settings.max_concurrent_streams),
        # Who connects and says nothing, or stays and asks nothing, does not keep a connection: a client opens another when it has a call.
        ("grpc.server_handshake_timeout_ms", 20_000),
        ("grpc.max_connection_idle_ms", 15 * 60_000),
        # Tokens of issuers that write many groups into them are larger than gRPC's 8 KiB; what is larger than this is refused before it is looked at.
        ("grpc.max_metadata_size", _MOST_METADATA),
        ("grpc.absolute_max_metadata_size", _MOST_METADATA),
    ]
    if settings.max_connection_age_seconds:
        # A stream may outlive its connection's age; what ends it is its own deadline.
        chosen.append(("grpc.max_connection_age_ms", int(settings.max_connection_age_seconds * 1000)))
    return chosen


def channel_options(address: str, settings: CoreSettings) -> list[tuple[str, Any]]:
    """Give the options of a channel to an address; one that DNS may know several servers of (``dns:///``) asks them in turn."""
    chosen = options(settings)
    if address.startswith("dns:"):
        chosen += [("grpc.lb_policy_name", "round_robin"), ("grpc.dns_min_time_between_resolutions_ms", 5_000)]
    return chosen


def outgoing(token: str | None) -> list[tuple[str, str]]:
    """Give the metadata of a call to another service: token, place in the trace, and the request id and caller of the call being answered."""
    call = current()
    metadata = [*bearer(token), *tracing.headers()]
    if call.request_id:
        metadata.append(("x-request-id", call.request_id))
    if call.caller:
        metadata.append(("x-oteo-caller", call.caller))
    return metadata


def _extended(details: Any, token: str | None) -> Any:
    return details._replace(metadata=[*(details.metadata or ()), *outgoing(token)])


class _Aio:
    def __init__(self, token: str | None) -> None:
        self._token = token

    async def _forward(self, continuation: Any, details: Any, request: Any) -> Any:
        return await continuation(_extended(details, self._token), request)


class _AioUnaryUnary(_Aio, grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await self._forward(continuation, client_call_details, request)


class _AioUnaryStream(_Aio, grpc.aio.UnaryStreamClientInterceptor):
    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await self._forward(continuation, client_call_details, request)


class _AioStreamUnary(_Aio, grpc.aio.StreamUnaryClientInterceptor):
    async def intercept_stream_unary(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return await self._forward(continuation, client_call_details, request_iterator)


class _AioStreamStream(_Aio, grpc.aio.StreamStreamClientInterceptor):
    async def intercept_stream_stream(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return await self._forward(continuation, client_call_details, request_iterator)


class _Sync(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    def __init__(self, token: str | None) -> None:
        self._token = token

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return continuation(_extended(client_call_details, self._token), request)

    def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return continuation(_extended(client_call_details, self._token), request)

    def intercept_stream_unary(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return continuation(_extended(client_call_details, self._token), request_iterator)

    def intercept_stream_stream(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return continuation(_extended(client_call_details, self._token), request_iterator)


def channel(address: str, settings: CoreSettings) -> grpc.aio.Channel:
    """Open an asyncio channel to another service."""
    token, credentials = settings.shared_token(), channel_credentials(settings)
    interceptors: list[grpc.aio.ClientInterceptor] = [
        _AioUnaryUnary(token),
        _AioUnaryStream(token),
        _AioStreamUnary(token),
        _AioStreamStream(token),
    ]
    if credentials is not None:
        return grpc.aio.secure_channel(address, credentials, channel_options(address, settings), interceptors=interceptors)
    return grpc.aio.insecure_channel(address, channel_options(address, settings), interceptors=interceptors)


def sync_channel(address: str, settings: CoreSettings) -> grpc.Channel:
    """Open a blocking channel to another service, for jobs and tools."""
    token, credentials = settings.shared_token(), channel_credentials(settings)
    if credentials is not None:
        opened = grpc.secure_channel(address, credentials, channel_options(address, settings))
    else:
        opened = grpc.insecure_channel(address, channel_options(address, settings))
    return grpc.intercept_channel(opened, _Sync(token))
