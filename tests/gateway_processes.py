"""Several gateway processes on one port, as an operator runs them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import grpc
import psutil
from grpc_health.v1 import health_pb2, health_pb2_grpc
from waiting import patient

from oteo_local import ports

TOKEN = "a-token-for-tests"


class Gateways:
    """A parent and its processes, on a free port.

    Parameters
    ----------
    home
        Folder of their state and log.
    environment
        More settings.
    """

    def __init__(self, home: Path, **environment: str) -> None:
        self.home = home
        self.port, self.metrics_port = ports.free_port(), ports.free_port()
        self.address = f"127.0.0.1:{self.port}"
        variables = {
            **os.environ,
            "OTEO_HOME": str(home),
            "OTEO_TOKEN": TOKEN,
            "OTEO_GATEWAY_ADDRESS": self.address,
            "OTEO_METRICS_PORT": str(self.metrics_port),
            "OTEO_PROCESSES": "2",
            "OTEO_DRAIN_SECONDS": "2",
            "OTEO_TRITON_URLS": "127.0.0.1:1",
            **environment,
        }
        with open(home / "gateway.log", "ab") as log:
            self.parent = subprocess.Popen([sys.executable, "-m", "oteo_gateway"], env=variables, stdout=log, stderr=log)
        self.process = psutil.Process(self.parent.pid)

    def children(self) -> set[int]:
        return {child.pid for child in self.process.children()}

    def serving(self) -> bool:
        """Tell whether a new connection is answered."""
        assert self.parent.poll() is None, (self.home / "gateway.log").read_text()[-2000:]
        with grpc.insecure_channel(self.address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            try:
                answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=patient(2))
            except grpc.RpcError:
                return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    def listeners(self) -> set[int]:
        """Give the processes that listen on the port."""
        found = set()
        for child in self.process.children():
            with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended
                if any(one.status == psutil.CONN_LISTEN and one.laddr.port == self.port for one in child.net_connections("tcp")):
                    found.add(child.pid)
        return found

    def metrics(self) -> dict[str, float]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=patient(5)) as answer:
            lines = [line.rpartition(" ") for line in answer.read().decode().splitlines() if not line.startswith("#")]
        return {name: float(value) for name, _, value in lines}

    def kill(self) -> None:
        """End all at once."""
        children: set[int] = set()
        with contextlib.suppress(psutil.NoSuchProcess):
            children = self.children()
        self.parent.kill()
        self.parent.wait()
        for pid in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def memory(self) -> int:
        """Give the resident bytes of all processes."""
        total = 0
        for child in self.process.children():
            with contextlib.suppress(psutil.NoSuchProcess):
                total += child.memory_info().rss
        return total
