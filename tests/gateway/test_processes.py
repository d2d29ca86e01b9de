"""Several gateway processes on one port: all answer, one that dies is replaced, the end of the parent is the end of all."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import grpc
import psutil
import pytest
from gateway_support import TOKEN, wait_for
from grpc_health.v1 import health_pb2, health_pb2_grpc

from oteo_core.errors import Unavailable
from oteo_core.server.processes import held_port
from oteo_local import ports


class Gateways:
    """A parent and its processes."""

    def __init__(self, home: Path, **environment: str) -> None:
        self.home = home
        self.port, self.metrics_port = ports.free_port(), ports.free_port()
        variables = {
            **os.environ,
            "OTEO_HOME": str(home),
            "OTEO_TOKEN": TOKEN,
            "OTEO_GATEWAY_ADDRESS": f"127.0.0.1:{self.port}",
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
        with grpc.insecure_channel(f"127.0.0.1:{self.port}", [("grpc.use_local_subchannel_pool", 1)]) as channel:
            try:
                answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=2)
            except grpc.RpcError:
                return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    def listeners(self) -> set[int]:
        """Give the processes that listen on the port."""
        return {
            pid
            for pid in self.children()
            if any(
                connection.status == psutil.CONN_LISTEN and connection.laddr.port == self.port
                for connection in psutil.Process(pid).net_connections("tcp")
            )
        }

    def metrics(self) -> dict[str, float]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=5) as answer:
            lines = [line.rpartition(" ") for line in answer.read().decode().splitlines() if not line.startswith("#")]
        return {name: float(value) for name, _, value in lines}


@pytest.fixture
def gateways(tmp_path: Path) -> Iterator[Gateways]:
    running = Gateways(tmp_path)
    children: set[int] = set()
    try:
        wait_for(lambda: len(running.listeners()) == 2, 40)
        children = running.children()
        yield running
    finally:
        children |= running.children() if running.process.is_running() else set()
        running.parent.kill()
        running.parent.wait()
        for pid in children:
            if psutil.pid_exists(pid):
                os.kill(pid, signal.SIGKILL)


def test_a_killed_process_is_replaced_while_the_other_serves_and_all_drain_together(gateways: Gateways) -> None:
    before = gateways.children()
    assert all(gateways.serving() for _ in range(8))
    checks = 'oteo_rpc_handled_total{code="OK",method="/grpc.health.v1.Health/Check"}'
    counted = gateways.metrics()[checks]
    assert counted >= 8, "calls of all processes are on one page"
    killed = min(before)
    os.kill(killed, signal.SIGKILL)
    wait_for(lambda: len(gateways.listeners()) == 2 and killed not in gateways.children(), 40)
    assert before - {killed} < gateways.children(), "the other one was left alone"
    assert wait_for(gateways.serving)
    metrics = gateways.metrics()
    assert metrics["oteo_process_restarts_total"] == 1
    assert metrics["oteo_processes"] == 2
    assert metrics[checks] > counted, "what the killed one had counted is still there"
    children = gateways.children()
    gateways.parent.send_signal(signal.SIGTERM)
    assert gateways.parent.wait(30) == 0
    assert not any(psutil.pid_exists(pid) for pid in children)


def test_processes_end_when_their_parent_is_killed_and_the_port_is_free_again(gateways: Gateways) -> None:
    children = gateways.children()
    gateways.parent.kill()
    gateways.parent.wait()
    wait_for(lambda: not any(psutil.pid_exists(pid) for pid in children), 30)
    with held_port(f"127.0.0.1:{gateways.port}", seconds=5) as address:
        assert address == f"127.0.0.1:{gateways.port}"


def test_settings_that_cannot_be_served_end_the_parent(tmp_path: Path) -> None:
    broken = Gateways(tmp_path, OTEO_TOKEN="", OTEO_DATABASE_URL="postgresql://nobody@127.0.0.1:1/none")
    assert broken.parent.wait(60) != 0


def test_a_port_that_somebody_listens_on_is_refused() -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(Unavailable) as caught, held_port(f"127.0.0.1:{taken.getsockname()[1]}", seconds=0):
            pass
    assert caught.value.reason == "ADDRESS_IN_USE"


def test_port_0_is_a_free_one() -> None:
    with held_port("127.0.0.1:0") as address:
        assert int(address.rpartition(":")[2]) > 0
