"""`google.longrunning.Operations` over a real channel, on both databases."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.longrunning import operations_pb2, operations_pb2_grpc
from google.protobuf import duration_pb2, struct_pb2
from waiting import patient, wait_for

from oteo_core.artifacts import ArtifactStore
from oteo_core.errors import OteoError
from oteo_core.operations import OperationManager, OperationStore, State
from oteo_core.server import build_server
from oteo_core.settings import CoreSettings
from oteo_protos.augment.v1 import dataset_pb2
from oteo_protos.type.v1 import report_pb2


class Client:
    """The service behind a channel."""

    def __init__(self, manager: OperationManager, stub: operations_pb2_grpc.OperationsStub) -> None:
        self.manager = manager
        self.stub = stub

    def begin(self, **fields: Any) -> str:
        return str(self.manager.start_external("Deploy", struct_pb2.Struct(), metadata=dataset_pb2.ImportDatasetMetadata(), **fields).name)


def run(operation_store: OperationStore, tmp_path: Path, body: Callable[[Client], Awaitable[None]]) -> None:
    """Serve, call, and stop."""

    async def serve() -> None:
        settings = CoreSettings(home=tmp_path, allow_anonymous=True, listen="127.0.0.1:0")
        manager = OperationManager(settings, "toy", operation_store, ArtifactStore(settings.artifacts))

        def register(server: grpc.aio.Server) -> list[str]:
            operations_pb2_grpc.add_OperationsServicer_to_server(manager.servicer(), server)
            return ["google.longrunning.Operations"]

        server = build_server(settings, service="toy", register=register, listen="127.0.0.1:0")
        await server.start()
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
                await body(Client(manager, operations_pb2_grpc.OperationsStub(channel)))
        finally:
            await server.stop(0)
            manager.close()

    asyncio.run(asyncio.wait_for(serve(), patient(60)))


def test_an_operation_is_seen_from_begin_to_end(operation_store: OperationStore, tmp_path: Path) -> None:
    async def body(client: Client) -> None:
        name = client.begin(caller="alice")
        operation = await client.stub.GetOperation(operations_pb2.GetOperationRequest(name=name))
        metadata = dataset_pb2.ImportDatasetMetadata()
        assert operation.metadata.Unpack(metadata)
        assert (operation.done, metadata.progress.state) == (False, report_pb2.Progress.STATE_RUNNING)
        assert metadata.progress.caller == "alice"
        metadata.progress.fraction = 0.5
        assert client.manager.update(name, metadata)
        operation = await client.stub.GetOperation(operations_pb2.GetOperationRequest(name=name))
        operation.metadata.Unpack(metadata)
        assert metadata.progress.fraction == 0.5
        value = struct_pb2.Struct()
        value.update({"answer": 42})
        assert client.manager.succeed(name, value)
        assert not client.manager.fail(name, OteoError("too late"))
        operation = await client.stub.GetOperation(operations_pb2.GetOperationRequest(name=name))
        assert operation.done
        answer = struct_pb2.Struct()
        assert operation.response.Unpack(answer)
        assert answer["answer"] == 42
        operation.metadata.Unpack(metadata)
        assert (metadata.progress.state, metadata.progress.fraction) == (report_pb2.Progress.STATE_SUCCEEDED, 1.0)
        assert metadata.progress.HasField("end_time")

    run(operation_store, tmp_path, body)


def test_lists_are_paged_and_filtered(operation_store: OperationStore, tmp_path: Path) -> None:
    async def body(client: Client) -> None:
        names = [client.begin() for _ in range(5)]
        client.manager.fail(names[1], OteoError("no"))
        client.manager.cancelled(names[3])
        seen: list[str] = []
        token = ""
        while True:
            page = await client.stub.ListOperations(operations_pb2.ListOperationsRequest(name="operations", page_size=2, page_token=token))
            seen += [operation.name for operation in page.operations]
            token = page.next_page_token
            if not token:
                break
        assert sorted(seen) == sorted(names)
        assert len(seen) == 5
        done = await client.stub.ListOperations(operations_pb2.ListOperationsRequest(filter="done=true"))
        assert {operation.name for operation in done.operations} == {names[1], names[3]}
        live = await client.stub.ListOperations(operations_pb2.ListOperationsRequest(filter="done = false", page_size=2))
        assert len(live.operations) == 2
        for bad, field in (
            (operations_pb2.ListOperationsRequest(filter="colour=red"), "filter"),
            (operations_pb2.ListOperationsRequest(page_token="nonsense"), "page_token"),
            (operations_pb2.ListOperationsRequest(page_token=live.next_page_token), "page_token"),
            (operations_pb2.ListOperationsRequest(page_size=-1), "page_size"),
            (operations_pb2.ListOperationsRequest(name="datasets/x"), "name"),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await client.stub.ListOperations(bad)
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT, field

    run(operation_store, tmp_path, body)


def test_waiting_keeps_to_both_limits(operation_store: OperationStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # So much before a call's deadline is it answered.
    monkeypatch.setattr("oteo_core.operations.servicer._MARGIN_SECONDS", 2.0)

    async def body(client: Client) -> None:
        name = client.begin()
        begin = time.monotonic()
        operation = await client.stub.WaitOperation(
            operations_pb2.WaitOperationRequest(name=name, timeout=duration_pb2.Duration(nanos=500_000_000)), timeout=60
        )
        assert not operation.done
        assert 0.4 < time.monotonic() - begin < 20
        begin = time.monotonic()
        # The call's own deadline: answered before it passes.
        operation = await client.stub.WaitOperation(operations_pb2.WaitOperationRequest(name=name), timeout=3.0)
        assert not operation.done
        assert 0.5 < time.monotonic() - begin < 3
        waiting = asyncio.ensure_future(client.stub.WaitOperation(operations_pb2.WaitOperationRequest(name=name), timeout=120))
        await asyncio.sleep(0.5)
        begin = time.monotonic()
        client.manager.succeed(name, struct_pb2.Struct())
        assert (await waiting).done
        assert time.monotonic() - begin < patient(2)

    run(operation_store, tmp_path, body)


def test_cancel_is_asked_of_whoever_works(operation_store: OperationStore, tmp_path: Path) -> None:
    async def body(client: Client) -> None:
        name = client.begin()
        asked: list[str] = []
        client.manager.on_cancel = lambda row: asked.append(row.id)
        for _ in range(2):
            await client.stub.CancelOperation(operations_pb2.CancelOperationRequest(name=name))
        await asyncio.to_thread(wait_for, lambda: name.removeprefix("operations/") in asked)
        assert client.manager.cancel_requested(name)
        operation = await client.stub.GetOperation(operations_pb2.GetOperationRequest(name=name))
        assert not operation.done
        client.manager.cancelled(name)
        operation = await client.stub.GetOperation(operations_pb2.GetOperationRequest(name=name))
        assert operation.error.code == grpc.StatusCode.CANCELLED.value[0]
        await client.stub.CancelOperation(operations_pb2.CancelOperationRequest(name=name))
        await client.stub.DeleteOperation(operations_pb2.DeleteOperationRequest(name=name))
        for call, request in (
            (client.stub.GetOperation, operations_pb2.GetOperationRequest(name=name)),
            (client.stub.CancelOperation, operations_pb2.CancelOperationRequest(name=name)),
            (client.stub.DeleteOperation, operations_pb2.DeleteOperationRequest(name=name)),
            (client.stub.WaitOperation, operations_pb2.WaitOperationRequest(name=name)),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(request)
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.stub.GetOperation(operations_pb2.GetOperationRequest(name="nonsense"))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT

    run(operation_store, tmp_path, body)


def test_a_live_operation_is_not_deleted(operation_store: OperationStore, tmp_path: Path) -> None:
    async def body(client: Client) -> None:
        name = client.begin()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.stub.DeleteOperation(operations_pb2.DeleteOperationRequest(name=name))
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert operation_store.get(name.removeprefix("operations/")).state is State.RUNNING

    run(operation_store, tmp_path, body)
