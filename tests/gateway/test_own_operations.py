"""Whose operations a caller sees: its own, unless it looks after all."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from access_support import bearing
from gateway_support import TOKEN, Loop, details_of, running_gateway, settings_for
from google.longrunning import operations_pb2, operations_pb2_grpc
from live_server import live_server

from oteo_core.artifacts import open_store
from oteo_core.context import current
from oteo_core.errors import InvalidArgument
from oteo_core.operations import OperationManager, OperationStore
from oteo_core.operations.filters import OperationsFilter
from oteo_core.settings import CoreSettings
from oteo_core.tokens import TokenFile
from oteo_protos.augment.v1 import dataset_pb2, dataset_pb2_grpc


class Datasets(dataset_pb2_grpc.DatasetServiceServicer):  # type: ignore[misc, unused-ignore]
    """Imports that never end by themselves."""

    def __init__(self, operations: OperationManager) -> None:
        self._operations = operations

    def ImportDataset(self, request: Any, context: Any) -> operations_pb2.Operation:
        return self._operations.start_external(
            "ImportDataset", request, metadata=dataset_pb2.ImportDatasetMetadata(), request_id=request.request_id, caller=current().caller
        )


class World:
    """A gateway, the augment behind it with its real operations, and callers."""

    def __init__(self, address: str, tokens: dict[str, str]) -> None:
        self._channel = grpc.insecure_channel(address)
        self._tokens = {**tokens, "part": TOKEN}
        self.operations = operations_pb2_grpc.OperationsStub(self._channel)
        self.datasets = dataset_pb2_grpc.DatasetServiceStub(self._channel)

    def close(self) -> None:
        self._channel.close()

    def call(self, who: str, method: Callable[..., Any], request: Any) -> Any:
        return method(request, metadata=bearing(self._tokens[who]), timeout=60)

    def start(self, who: str, request_id: str = "") -> str:
        request = dataset_pb2.ImportDatasetRequest(source_uri="/images", request_id=request_id or str(uuid.uuid4()))
        return str(self.call(who, self.datasets.ImportDataset, request).name)

    def listed(self, who: str, filter_: str = "", size: int = 0) -> list[str]:
        request = operations_pb2.ListOperationsRequest(name="operations/augment", filter=filter_, page_size=size)
        names = []
        while True:
            page = self.call(who, self.operations.ListOperations, request)
            names += [operation.name for operation in page.operations]
            if not page.next_page_token:
                return names
            request.page_token = page.next_page_token

    def refusal(self, who: str, method: Callable[..., Any], request: Any) -> str:
        with pytest.raises(grpc.RpcError) as caught:
            self.call(who, method, request)
        return f"{caught.value.code().name} {details_of(caught.value)[0]}"


@pytest.fixture
def world(loop: Loop, tmp_path: Path) -> Iterator[World]:
    home = tmp_path / "home"
    behind = CoreSettings(home=home, token=TOKEN)
    operations = OperationManager(behind, "augment", OperationStore(behind.database_url), open_store(behind))
    operations.on_cancel = lambda row: operations.cancelled(row.id)

    def register(server: Any) -> list[str]:
        dataset_pb2_grpc.add_DatasetServiceServicer_to_server(Datasets(operations), server)
        operations_pb2_grpc.add_OperationsServicer_to_server(operations.servicer(), server)
        return ["oteo.augment.v1.DatasetService", "google.longrunning.Operations"]

    file = TokenFile(home / "tokens.json")
    roles = {"ann": "trainer", "ben": "trainer", "vic": "viewer", "olga": "operator"}
    tokens = {name: file.create(name, [role])[0] for name, role in roles.items()}
    with live_server(behind, register) as service:
        settings = settings_for(home, augment_address=service.address)
        with running_gateway(loop, settings, log_dir=tmp_path / "logs") as running:
            found = World(running.address, tokens)
            yield found
            found.close()
    operations.close()


def test_callers_see_and_stop_what_they_began_themselves(world: World) -> None:
    mine, other = world.start("ann"), world.start("ben")
    for method, request in (
        (world.operations.GetOperation, operations_pb2.GetOperationRequest),
        (world.operations.WaitOperation, operations_pb2.WaitOperationRequest),
        (world.operations.CancelOperation, operations_pb2.CancelOperationRequest),
        (world.operations.DeleteOperation, operations_pb2.DeleteOperationRequest),
    ):
        assert world.refusal("ann", method, request(name=other)) == "PERMISSION_DENIED NOT_YOUR_OPERATION"
    assert world.call("ann", world.operations.GetOperation, operations_pb2.GetOperationRequest(name=mine)).name == mine
    assert not world.call("olga", world.operations.GetOperation, operations_pb2.GetOperationRequest(name=other)).done, "still running"
    world.call("ann", world.operations.CancelOperation, operations_pb2.CancelOperationRequest(name=mine))
    assert world.call("ann", world.operations.WaitOperation, operations_pb2.WaitOperationRequest(name=mine)).done
    world.call("ann", world.operations.DeleteOperation, operations_pb2.DeleteOperationRequest(name=mine))
    missing = operations_pb2.GetOperationRequest(name=mine)
    assert world.refusal("ann", world.operations.GetOperation, missing) == "NOT_FOUND OPERATION_NOT_FOUND"


def test_lists_hold_ones_own_page_by_page_and_operators_see_all(world: World) -> None:
    mine = [world.start("ann") for _ in range(5)]
    others = [world.start("ben") for _ in range(3)]
    assert world.listed("ann", size=2) == mine[::-1]
    assert world.listed("vic") == []
    assert world.listed("olga", size=3) == (mine + others)[::-1]
    assert world.listed("part") == (mine + others)[::-1]
    assert world.listed("olga", 'caller="token:ben"') == others[::-1]
    world.call("olga", world.operations.CancelOperation, operations_pb2.CancelOperationRequest(name=others[0]))
    world.call("olga", world.operations.WaitOperation, operations_pb2.WaitOperationRequest(name=others[0]))
    assert world.listed("ben", "done=true") == [others[0]]
    assert world.listed("ann", 'done=false AND caller="token:ann"') == mine[::-1]
    request = operations_pb2.ListOperationsRequest(name="operations", filter='caller="token:ben"')
    assert world.refusal("ann", world.operations.ListOperations, request) == "PERMISSION_DENIED NOT_YOUR_OPERATION"


def test_the_same_request_id_of_two_callers_is_two_requests(world: World) -> None:
    request_id = str(uuid.uuid4())
    assert world.start("ann", request_id) == world.start("ann", request_id)
    assert world.start("ann", request_id) != world.start("ben", request_id)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", OperationsFilter()),
        (" done = true ", OperationsFilter(done=True)),
        ("done", OperationsFilter(done=True)),
        ("NOT done", OperationsFilter(done=False)),
        ('caller="a AND b"', OperationsFilter(caller="a AND b")),
        (r'caller = "say \"x\""   AND done=false', OperationsFilter(done=False, caller='say "x"')),
    ],
)
def test_filters(text: str, found: OperationsFilter) -> None:
    assert OperationsFilter.read(text) == found
    assert OperationsFilter.read(found.write()) == found


@pytest.mark.parametrize(
    "text",
    [
        "done=maybe",
        "caller=ann",
        'caller="a',
        'caller="a" AND caller="b"',
        "done AND done",
        "AND",
        'done OR caller="a"',
        'caller="\\x"',
        "0",
    ],
)
def test_filters_that_are_none(text: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        OperationsFilter.read(text)
    assert caught.value.reason == "INVALID_FILTER"
