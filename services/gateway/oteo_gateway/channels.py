"""Persistent channels for calls that are passed on as they are.

Without client interceptors, whose tasks cost more than the hop itself: the token is put into the metadata where calls are forwarded.
"""

from __future__ import annotations

from typing import Any

import grpc

from oteo_core.certificates import channel_credentials
from oteo_core.server.channels import channel_options, options
from oteo_core.settings import CoreSettings

# Back within a second after a restart, instead of after gRPC's two minutes.
_RECONNECT: list[tuple[str, Any]] = [
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 1000),
]
# A network that is cut says nothing. gRPC sets TCP_USER_TIMEOUT to this time-out: what is sent and not acknowledged by then ends the connection, and a new
# one is tried every second, where TCP's own repetitions would come ever more rarely. A replica that works is none the worse: its kernel acknowledges.
_CUT: list[tuple[str, Any]] = [("grpc.keepalive_timeout_ms", 2_500)]


def service_channel(address: str, settings: CoreSettings) -> grpc.aio.Channel:
    """Open a channel to one of Oteo's services, with TLS where the settings have it."""
    credentials = channel_credentials(settings)
    chosen = [*channel_options(address, settings), *_RECONNECT]
    if credentials is None:
        return grpc.aio.insecure_channel(address, chosen)
    return grpc.aio.secure_channel(address, credentials, chosen)


def triton_channel(address: str, settings: CoreSettings) -> grpc.aio.Channel:
    """Open a channel to a Triton replica, which has no token and is reached over loopback or inside the cluster's own network."""
    return grpc.aio.insecure_channel(address, [*options(settings), *_RECONNECT, *_CUT])


def sync_triton_channel(address: str, settings: CoreSettings) -> grpc.Channel:
    """Open a blocking channel to a Triton replica, for the reconciler's threads."""
    return grpc.insecure_channel(address, [*options(settings), *_RECONNECT, *_CUT])
