"""Where the gateway is, and a channel to it."""

from __future__ import annotations

import ipaddress
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import grpc

from oteo.errors import OteoApiError
from oteo.retrying import POLICY, RetryPolicy, made_repeatable

T = TypeVar("T")
MAX_MESSAGE_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class Endpoint:
    """The gateway's address, the token, and the certificates to check it by (PEM file; None: no TLS)."""

    address: str
    token: str | None = None
    ca_file: Path | None = None

    @property
    def is_local(self) -> bool:
        """True where the gateway runs on this machine, so that it sees the same files."""
        host = self.address.rsplit(":", 1)[0].strip("[]")
        if host == "localhost":
            return True
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return False


def home() -> Path:
    """Give the folder of this machine's stack: ``OTEO_HOME`` or ``~/.oteo``."""
    return Path(os.environ.get("OTEO_HOME", "~/.oteo")).expanduser().absolute()


def find_endpoint(address: str | None = None, token: str | None = None) -> Endpoint:
    """Find the gateway: from the arguments, then ``OTEO_ADDRESS`` and ``OTEO_TOKEN``, then this machine's stack.

    Raises
    ------
    OteoApiError
        UNAVAILABLE, reason NO_STACK, where no address is given and no stack was ever started here.
    """
    folder = home()
    address = address or os.environ.get("OTEO_ADDRESS")
    token = token or os.environ.get("OTEO_TOKEN")
    if address is None:
        try:
            address = str(json.loads((folder / "endpoints.json").read_text())["gateway"])
        except (OSError, KeyError, ValueError):
            raise OteoApiError(
                "UNAVAILABLE",
                f"no stack was started with OTEO_HOME={folder}; start one with `oteo up`, or give an address with OTEO_ADDRESS",
                reason="NO_STACK",
            ) from None
    ca_file = os.environ.get("OTEO_CA_FILE")
    # This machine's token is nothing that another machine is to see.
    if token is None and Endpoint(address).is_local and (folder / "token").is_file():
        token = (folder / "token").read_text().strip()
    return Endpoint(address, token, Path(ca_file) if ca_file else None)


class _Token(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """Put the token on every call; it works with and without TLS, which call credentials do not."""

    def __init__(self, token: str) -> None:
        self._header = ("authorization", f"Bearer {token}")

    def _with(self, details: Any) -> grpc.ClientCallDetails:
        return details._replace(metadata=[*(details.metadata or ()), self._header])  # type: ignore[no-any-return]

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return continuation(self._with(client_call_details), request)

    def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return continuation(self._with(client_call_details), request)

    def intercept_stream_unary(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return continuation(self._with(client_call_details), request_iterator)

    def intercept_stream_stream(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return continuation(self._with(client_call_details), request_iterator)


def channel_options(endpoint: Endpoint) -> list[tuple[str, Any]]:
    """Give the options of channels to the gateway: message limits and keep-alive. Calls are made again by `call`, which knows RetryInfo."""
    return [
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.keepalive_time_ms", 60_000),
        # A proxy for the web has no business with a gateway on this machine.
        ("grpc.enable_http_proxy", 0 if endpoint.is_local else 1),
        ("grpc.max_reconnect_backoff_ms", 2_000),
    ]


def open_channel(endpoint: Endpoint) -> grpc.Channel:
    """Open a channel to the gateway, with the token on every call."""
    options = channel_options(endpoint)
    if endpoint.ca_file is not None:
        credentials = grpc.ssl_channel_credentials(endpoint.ca_file.read_bytes())
        channel = grpc.secure_channel(endpoint.address, credentials, options)
    else:
        channel = grpc.insecure_channel(endpoint.address, options)
    return grpc.intercept_channel(channel, _Token(endpoint.token)) if endpoint.token else channel


def call(method: Callable[..., T], request: Any, timeout: float | None = None, policy: RetryPolicy = POLICY) -> T:
    """Call a stub's unary method, and again where AIP-194 has it; turn a failed call into `OteoApiError`.

    Parameters
    ----------
    method, request
        The stub's method and its request, which gets a ``request_id`` where it has that field and none is set.
    timeout
        Seconds for all attempts and the pauses between them together; None: no limit.
    policy
        How often and when it is made again.
    """
    until = None if timeout is None else time.monotonic() + timeout
    request, attempt = made_repeatable(request), 0
    while True:
        attempt += 1
        try:
            return method(request, timeout=None if until is None else max(0.0, until - time.monotonic()))
        except grpc.RpcError as error:
            failed = OteoApiError.from_rpc(error)
        pause = policy.pause(failed, attempt, None if until is None else until - time.monotonic())
        if pause is None:
            raise failed
        time.sleep(pause)


def pages(method: Callable[..., Any], request: Any, field: str, limit: int | None = None) -> Iterator[Any]:
    """Give the items of all pages of a List method, at most ``limit``."""
    count = 0
    while True:
        page = call(method, request, timeout=60)
        for item in getattr(page, field):
            if limit is not None and count >= limit:
                return
            count += 1
            yield item
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token


def stream(method: Callable[..., Any], requests: Iterator[Any]) -> Iterator[Any]:
    """Call a method of streams in both directions; turn a failed call into `OteoApiError`."""
    try:
        yield from method(requests)
    except grpc.RpcError as error:
        raise OteoApiError.from_rpc(error) from None
