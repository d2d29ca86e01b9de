"""The real stack: everything answers, keeps to itself, and comes back when it is killed. That nothing is left at the end is checked by the fixture `stack`."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
import urllib.error
import urllib.request

import grpc
import psutil
import pytest
from google.longrunning import operations_pb2, operations_pb2_grpc
from waiting import patient, wait_for

from oteo_local import health, processes, triton

pytestmark = pytest.mark.stack

PARTS = ["ray", "mlflow", "triton", "augment", "automl", "translate", "gateway"]


def get(url: str, **headers: str) -> bytes:
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=60) as answer:
        return bytes(answer.read())


def test_everything_is_healthy_and_says_where_it_is(stack):
    statuses = {status.name: status for status in stack.status()}
    assert list(statuses) == PARTS
    assert all(status.healthy and status.state in ("starting", "running") and status.pid for status in statuses.values())
    written = json.loads((stack.home / "endpoints.json").read_text())
    assert written == stack.endpoints
    for name in ("gateway", "augment", "automl", "translate"):
        assert health.grpc_health(written[name])
        assert b"# HELP" in get(written["metrics"][name])
    assert triton.is_ready(written["triton"])
    assert b"nv_" in get(written["metrics"]["triton"])
    assert get(f"{written['mlflow']}/health") == b"OK"
    assert b"<html" in get(written["mlflow"]).lower()


def test_up_of_a_running_stack_changes_nothing(stack):
    before = {name: stack.pid(name) for name in PARTS}
    started = time.monotonic()
    stack.up(timeout=300)
    assert time.monotonic() - started < patient(10)
    assert {name: stack.pid(name) for name in PARTS} == before


def test_ray_answers_to_its_token_only(stack):
    jobs = f"{stack.endpoints['ray_dashboard']}/api/jobs/"
    with pytest.raises(urllib.error.HTTPError) as refused:
        get(jobs)
    assert refused.value.code in (401, 403)
    token = stack.layout.ray_token.read_text().strip()
    assert isinstance(json.loads(get(jobs, Authorization=f"Bearer {token}")), list)


def test_a_call_without_the_token_is_refused_by_every_service(stack):
    for name in ("gateway", "augment", "automl", "translate"):
        with grpc.insecure_channel(stack.endpoints[name]) as channel:
            operations = operations_pb2_grpc.OperationsStub(channel)
            request = operations_pb2.ListOperationsRequest(name="operations")
            with pytest.raises(grpc.RpcError) as refused:
                operations.ListOperations(request, timeout=60)
            assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED, name
            operations.ListOperations(request, timeout=60, metadata=[("authorization", f"Bearer {stack.token}")])


def test_our_own_servers_listen_on_loopback_only(stack):
    listening = {}
    for name in PARTS:
        if name == "ray":  # listens on all interfaces whatever it is told, behind its token
            continue
        for process in stack.processes(name):
            with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended
                for connection in process.net_connections(kind="tcp"):
                    if connection.status == psutil.CONN_LISTEN:
                        listening[(name, connection.laddr.port)] = connection.laddr.ip.removeprefix("::ffff:")
    assert len(listening) >= 11
    assert set(listening.values()) <= {"127.0.0.1", "::1"}, listening


@pytest.mark.parametrize("name", ["triton", "mlflow", "ray"])
def test_an_engine_that_is_killed_comes_back_without_what_it_left(stack, name):
    before = stack.processes(name)
    main = stack.pid(name)
    os.kill(main, signal.SIGKILL)
    wait_for(lambda: stack.pid(name) not in (0, main), 30)
    stack.wait_healthy(patient(30))
    assert stack.pid(name) not in (0, main)
    assert not [process for process in before if processes.is_alive(process)], "the killed one's children still run"


@pytest.mark.slow
def test_ray_comes_back_when_a_daemon_of_it_dies(stack):
    main = stack.pid("ray")
    stores = []
    for process in stack.processes("ray"):
        with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended
            if process.name() == "gcs_server":
                stores.append(process)
    (store,) = stores
    store.kill()
    wait_for(lambda: stack.pid("ray") not in (0, main), 60)
    stack.wait_healthy(patient(30))
    assert stack.pid("ray") not in (0, main)
