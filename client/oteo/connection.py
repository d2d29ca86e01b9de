"""Where the gateway is, and a channel to it."""

from __future__ import annotations

import ipaddress
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message

from oteo.credentials import TokenSource, from_environment
from oteo.errors import OteoApiError
from oteo.retrying import POLICY, RetryPolicy, made_repeatable

T = TypeVar("T")
MAX_MESSAGE_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class Endpoint:
    """Where the gateway is and how to speak to it.

    Attributes
    ----------
    address
        ``host:port``.
    token
        What is borne: a token, or what gives one for each call; None: none.
    ca_file
        PEM certificates that the gateway is checked against.
    tls
        Whether to speak TLS without them, by the system's certificates; they and a certificate of one's own mean TLS by themselves.
    cert_file, key_file
        PEM files of one's own certificate, which a gateway may take in the place of a token.
    """

    address: str
    token: str | TokenSource | None = field(default=None, repr=False)
    ca_file: Path | None = None
    tls: bool = False
    cert_file: Path | None = None
    key_file: Path | None = None

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


def find_endpoint(address: str | None = None, token: str | TokenSource | None = None) -> Endpoint:
    """Find the gateway: from the arguments, then ``OTEO_ADDRESS`` and ``OTEO_TOKEN`` (``_FILE``, ``_COMMAND``), then this machine's stack.

    ``OTEO_CA_FILE``, ``OTEO_TLS``, ``OTEO_CERT_FILE`` and ``OTEO_KEY_FILE`` say how to speak to it.

    Raises
    ------
    OteoApiError
        UNAVAILABLE, reason NO_STACK, where no address is given and no stack was ever started here.
    """
    folder = home()
    address = address or os.environ.get("OTEO_ADDRESS")
    token = token or from_environment(os.environ)
    if address is None:
        try:
            address = str(json.loads((folder / "endpoints.json").read_text())["gateway"])
        except (OSError, KeyError, ValueError):
            raise OteoApiError(
                "UNAVAILABLE",
                f"no stack was started with OTEO_HOME={folder}; start one with `oteo up`, or give an address with OTEO_ADDRESS",
                reason="NO_STACK",
            ) from None
    ca_file, cert_file, key_file = (_path(os.environ.get(f"OTEO_{name}_FILE")) for name in ("CA", "CERT", "KEY"))
    tls = os.environ.get("OTEO_TLS", "").lower() in ("1", "true", "yes")
    # This machine's token is nothing that another machine is to see.
    if token is None and Endpoint(address).is_local and (folder / "token").is_file():
        token = (folder / "token").read_text().strip()
    return Endpoint(address, token, ca_file, tls, cert_file, key_file)


def _path(text: str | None) -> Path | None:
    return Path(text).expanduser() if text else None


def channel_credentials(endpoint: Endpoint) -> grpc.ChannelCredentials | None:
    """Give the TLS that an endpoint wants; None: none.

    Raises
    ------
    OteoApiError
        FAILED_PRECONDITION, reason CERTIFICATE_UNREADABLE.
    """
    if not (endpoint.tls or endpoint.ca_file or endpoint.cert_file):
        return None
    try:
        ca, certificate, key = (path.read_bytes() if path else None for path in (endpoint.ca_file, endpoint.cert_file, endpoint.key_file))
    except OSError as error:
        raise OteoApiError(
            "FAILED_PRECONDITION", f"a certificate's file cannot be read: {error}", reason="CERTIFICATE_UNREADABLE"
        ) from None
    if (certificate is None) != (key is None):
        raise OteoApiError(
            "FAILED_PRECONDITION", "a certificate needs its key: set both OTEO_CERT_FILE and OTEO_KEY_FILE", reason="CERTIFICATE_UNREADABLE"
        )
    return grpc.ssl_channel_credentials(ca, key, certificate)


class _Token(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """Put the token on every call; it works with and without TLS, which call credentials do not."""

    def __init__(self, token: str | TokenSource) -> None:
        self._token = token

    def _with(self, details: Any) -> grpc.ClientCallDetails:
        token = self._token if isinstance(self._token, str) else self._token()
        return details._replace(metadata=[*(details.metadata or ()), ("authorization", f"Bearer {token}")])  # type: ignore[no-any-return]

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
    credentials = channel_credentials(endpoint)
    if credentials is not None:
        channel = grpc.secure_channel(endpoint.address, credentials, options)
    else:
        channel = grpc.insecure_channel(endpoint.address, options)
    return grpc.intercept_channel(channel, _Token(endpoint.token)) if endpoint.token else channel


def call(method: Callable[..., T], request: Any, timeout: float | None = None, policy: RetryPolicy = POLICY) -> T:
    """Call a stub's unary method, and again where AIP-194 has it; turn a failed call into `OteoApiError`.

    Parameters
    ----------
    method, request
        The stub's method and its request, which gets a ``request_id`` where it has that field and none is set. A stream of messages is sent once:
        what has been read of it cannot be sent again.
    timeout
        Seconds for all attempts and the pauses between them together; None: no limit.
    policy
        How often and when it is made again.
    """
    until = None if timeout is None else time.monotonic() + timeout
    again = isinstance(request, Message)
    request, attempt = made_repeatable(request) if again else request, 0
    while True:
        attempt += 1
        try:
            return method(request, timeout=None if until is None else max(0.0, until - time.monotonic()))
        except grpc.RpcError as error:
            failed = OteoApiError.from_rpc(error)
        pause = policy.pause(failed, attempt, None if until is None else until - time.monotonic()) if again else None
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
