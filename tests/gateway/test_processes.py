"""Several gateway processes on one port: all answer, one that dies is replaced, the end of the parent is the end of all."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import psutil
import pytest
from access_support import who
from gateway_processes import Gateways
from gateway_support import details_of
from waiting import patient, wait_for

from oteo_core.errors import Unavailable
from oteo_core.server.processes import held_port
from oteo_core.tokens import TokenFile


@pytest.fixture
def gateways(tmp_path: Path) -> Iterator[Gateways]:
    running = Gateways(tmp_path)
    try:
        wait_for(lambda: len(running.listeners()) == 2, 40)
        yield running
    finally:
        running.kill()


def test_a_killed_process_is_replaced_while_the_other_serves_and_all_drain_together(gateways: Gateways) -> None:
    before = gateways.children()
    assert all(gateways.serving() for _ in range(8))
    checks = 'oteo_rpc_handled_total{code="OK",method="/grpc.health.v1.Health/Check"}'
    counted = gateways.metrics()[checks]
    assert counted >= 8, "calls of all processes are on one page"
    killed = min(before)
    os.kill(killed, signal.SIGKILL)
    wait_for(lambda: len(gateways.listeners() - {killed}) == 2, 40)
    assert before - {killed} < gateways.children(), "the other one was left alone"
    assert wait_for(gateways.serving)
    metrics = gateways.metrics()
    assert metrics["oteo_process_restarts_total"] == 1
    assert metrics["oteo_processes"] == 2
    assert metrics[checks] > counted, "what the killed one had counted is still there"
    children = gateways.children()
    gateways.parent.send_signal(signal.SIGTERM)
    assert gateways.parent.wait(patient(30)) == 0
    assert not any(psutil.pid_exists(pid) for pid in children)


def test_processes_end_when_their_parent_is_killed_and_the_port_is_free_again(gateways: Gateways) -> None:
    children = gateways.children()
    gateways.parent.kill()
    gateways.parent.wait()
    wait_for(lambda: not any(psutil.pid_exists(pid) for pid in children), 30)
    with held_port(f"127.0.0.1:{gateways.port}", seconds=patient(5)) as address:
        assert address == f"127.0.0.1:{gateways.port}"


def test_a_caller_s_limits_are_those_of_all_processes_together(tmp_path: Path) -> None:
    token, _ = TokenFile(tmp_path / "tokens.json").create("a", ["viewer"])
    running = Gateways(tmp_path, OTEO_LIMITS_OF='{"token:a": {"requests_per_minute": 6}}')
    try:
        wait_for(lambda: len(running.listeners()) == 2, 40)
        begin, codes = time.monotonic(), []
        # Each connection goes to one of the two, by chance: of so many both have some.
        for _ in range(32):
            with grpc.insecure_channel(running.address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
                try:
                    who(channel, token)
                    codes.append("OK")
                except grpc.RpcError as error:
                    codes.append(details_of(error)[0])
        passed = (time.monotonic() - begin) * 6 / 60
        assert set(codes) == {"OK", "RATE_LIMITED"}
        assert 6 <= codes.count("OK") <= 6 + passed, codes
    finally:
        running.kill()


def test_settings_that_cannot_be_served_end_the_parent(tmp_path: Path) -> None:
    broken = Gateways(tmp_path, OTEO_TOKEN="", OTEO_DATABASE_URL="postgresql://nobody@127.0.0.1:1/none")
    try:
        assert broken.parent.wait(patient(40)) != 0
    finally:
        broken.kill()


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
