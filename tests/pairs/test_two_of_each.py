"""Faults on a site of two gateways and two replicas of each service, on one PostgreSQL, one artifact store and one Ray."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from callers import User, answered, predict
from gateway_calls import Calls
from google.longrunning import operations_pb2
from google.protobuf import duration_pb2
from pair_site import Pair, begun_once, ended
from steady_load import SteadyLoad
from waiting import wait_for

from oteo_core.operations.model import unpack
from oteo_core.sampledata import draw_cells
from oteo_local.processes import is_alive
from oteo_protos.augment.v1 import augment_pb2, dataset_pb2
from oteo_protos.type.v1 import report_pb2

pytestmark = pytest.mark.slow

COUNT = 48
"""Images of an import."""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder of images."""
    return draw_cells(tmp_path_factory.mktemp("cells") / "cells", count=COUNT, size=48, flaws=False).folder


@pytest.fixture
def calls(pair: Pair) -> Iterator[Calls]:
    """Give calls to both gateways' Service."""
    found = pair.calls()
    yield found
    found.close()


def importing(source: Path) -> dataset_pb2.ImportDatasetRequest:
    """Give the request of an import."""
    return dataset_pb2.ImportDatasetRequest(
        source_uri=str(source), dataset_id=f"cells-{uuid.uuid4().hex[:8]}", request_id=str(uuid.uuid4())
    )


def attempt_of(operation: operations_pb2.Operation) -> int:
    """Give how often an operation was begun."""
    metadata: Any = unpack(operation.metadata)
    return int(metadata.progress.attempt)


def whole(calls: Calls, dataset: str, count: int = COUNT) -> dataset_pb2.Dataset:
    """Give a dataset, which must have all images."""
    found = calls.datasets.GetDataset(dataset_pb2.GetDatasetRequest(name=dataset), timeout=120)
    assert found.sample_count == count
    return found


def test_the_lease_of_a_killed_replica_passes_on_and_one_job_runs(pair: Pair, calls: Calls, source: Path) -> None:
    request = importing(source)
    name = calls.datasets.ImportDataset(request, timeout=120).name
    pair.driver(name)
    leader = pair.leader(name)
    pair.kill(leader)
    try:
        # The one that is left takes it over within the lease's time, and does not start it again.
        wait_for(lambda: pair.row(name)["lease_owner"] and f"-{leader.process.pid}-" not in pair.row(name)["lease_owner"], 60)
        operation = ended(pair, calls, name)
        assert not operation.HasField("error"), operation.error
        begun_once(pair, name)
        whole(calls, f"datasets/{request.dataset_id}")
        # Whoever asks, by whichever gateway, gets this operation: called again, listed, waited for.
        for gateway in pair.cluster.of("gateway"):
            direct = pair.calls(gateway.target)
            assert direct.datasets.ImportDataset(request, timeout=120).name == name
            listing = operations_pb2.ListOperationsRequest(name="operations/augment", page_size=5)
            assert name in {found.name for found in direct.operations.ListOperations(listing, timeout=120).operations}
            waiting = operations_pb2.WaitOperationRequest(name=name, timeout=duration_pb2.Duration(seconds=5))
            assert direct.operations.WaitOperation(waiting, timeout=120).done
            direct.close()
    finally:
        pair.replace(leader)


def test_one_request_at_both_gateways_at_once_is_one_operation_and_one_job(pair: Pair, source: Path) -> None:
    request = importing(source)
    ways = [pair.calls(gateway.target) for gateway in pair.cluster.of("gateway") for _ in range(4)]
    with ThreadPoolExecutor(len(ways)) as pool:
        names = {found.name for found in pool.map(lambda way: way.datasets.ImportDataset(request, timeout=120), ways)}
    assert len(names) == 1
    name = names.pop()
    try:
        operation = ended(pair, ways[0], name)
        assert not operation.HasField("error"), operation.error
        begun_once(pair, name)
        # The same id with another request is refused at either.
        other = dataset_pb2.ImportDatasetRequest(source_uri="/elsewhere", dataset_id=request.dataset_id, request_id=request.request_id)
        for way in (ways[0], ways[-1]):
            assert way.refusal(lambda way=way: way.datasets.ImportDataset(other, timeout=120)).reason == "REQUEST_ID_REUSED"
    finally:
        for way in ways:
            way.close()


def test_an_operation_is_cancelled_by_the_replica_that_does_not_lead_it(pair: Pair, calls: Calls, source: Path) -> None:
    request = importing(source)
    name = calls.datasets.ImportDataset(request, timeout=120).name
    driver = pair.driver(name)
    leader = pair.leader(name)
    (other,) = [pod for pod in pair.cluster.of("augment") if pod is not leader]
    way = pair.calls(other.target)
    way.operations.CancelOperation(operations_pb2.CancelOperationRequest(name=name), timeout=120)
    begin = time.monotonic()
    wait_for(lambda: pair.row(name)["end_time"] is not None, 30)
    print(f"cancelled after {time.monotonic() - begin:.1f} s")
    operation = calls.operations.GetOperation(operations_pb2.GetOperationRequest(name=name), timeout=120)
    metadata: Any = unpack(operation.metadata)
    assert metadata.progress.state == report_pb2.Progress.STATE_CANCELLED
    assert operation.error.code == 1
    wait_for(lambda: not is_alive(driver), 15)
    assert not pair.store.exists(f"datasets/{request.dataset_id}")
    way.close()


def test_a_gateway_is_killed_while_calls_run(pair: Pair, colours: str) -> None:
    user = User(pair.cluster.address, answered)
    with SteadyLoad(pair.cluster.address, predict, callers=4, pause=0.05) as load:
        load.wait_good()
        victim = pair.cluster.of("gateway")[0]
        pair.kill(victim)
        time.sleep(2.0)
        pair.cluster.forget(victim)
        load.wait_good()
        pair.cluster.wait_ready(pair.cluster.start("gateway", victim.name))
        load.wait_good()
    load.check()
    print(f"a client without retries saw {dict(load.codes())}; with the SDK's {user.end()} answers and nothing else")
    assert set(load.codes()) <= {"OK", "UNAVAILABLE"}


def test_postgresql_is_restarted_and_then_away_for_ten_seconds(pair: Pair, calls: Calls, colours: str, source: Path) -> None:
    request = importing(source)
    name = calls.datasets.ImportDataset(request, timeout=120).name
    pair.driver(name)
    with SteadyLoad(pair.cluster.address, predict, callers=2, pause=0.1) as load:
        load.wait_good(20)
        pair.postgres.stop()
        pair.postgres.resume()
        load.wait_good(20)
        pair.postgres.stop()
        away = time.monotonic()
        try:
            found = calls.refusal(lambda: calls.operations.GetOperation(operations_pb2.GetOperationRequest(name=name), timeout=120))
            assert (found.code, found.reason) == ("UNAVAILABLE", "DATABASE_UNAVAILABLE"), found
            found = calls.refusal(lambda: calls.datasets.ImportDataset(importing(source), timeout=120))
            assert (found.code, found.reason) == ("UNAVAILABLE", "DATABASE_UNAVAILABLE"), found
            # What needs no row is answered.
            assert calls.augment.ListTransforms(augment_pb2.ListTransformsRequest(), timeout=120).transforms
            time.sleep(max(0.0, 10.0 - (time.monotonic() - away)))
        finally:
            pair.postgres.resume()
        load.wait_good(20)
        operation = ended(pair, calls, name)
    load.check()
    print(f"predictions meanwhile: {dict(load.codes())}")
    assert set(load.codes()) == {"OK"}, "answers go on from what gateways have read"
    assert not operation.HasField("error"), operation.error
    begun_once(pair, name)
    whole(calls, f"datasets/{request.dataset_id}")
    assert all(pod.process.poll() is None for pod in pair.cluster.pods.values()), "nobody had to be started again"
