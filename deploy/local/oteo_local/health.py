"""Ask a process of the stack whether it is ready to work."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Callable, Mapping

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

Check = Callable[[], bool]


def grpc_health(address: str, timeout: float = 1.0) -> bool:
    """Ask a gRPC server's health service about the whole server.

    Parameters
    ----------
    address : str
        Host and port.
    timeout : float
        Seconds.
    """
    # A pool of its own: else channels to the same address share one connection, with the waiting time that its last failure put on it.
    with grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=timeout)
        except grpc.RpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def http_ok(url: str, headers: Mapping[str, str] | None = None, timeout: float = 2.0) -> bool:
    """Say whether a URL answers with 200.

    Parameters
    ----------
    url : str
        On this machine; a proxy is never used.
    headers : mapping, optional
        Sent with the request.
    timeout : float
        Seconds.
    """
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(urllib.request.Request(url, headers=dict(headers or {})), timeout=timeout) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError, ValueError):
        return False
