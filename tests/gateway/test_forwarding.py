"""Calls of other services through the gateway: all four kinds, errors, cancellation, a service that is away."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest
from gateway_support import TOKEN, Backend, Loop, RunningGateway, details_of, running_gateway, settings_for
from google.longrunning import operations_pb2, operations_pb2_grpc
from waiting import patient, wait_for

from oteo_core.errors import InvalidArgument
from oteo_protos.augment.v1 import augment_pb2, augment_pb2_grpc, dataset_pb2, dataset_pb2_grpc
from oteo_protos.automl.v1 import automl_pb2, automl_pb2_grpc
from oteo_protos.type.v1 import image_pb2

DATASETS = "/oteo.augment.v1.DatasetService"
AUGMENT = "/oteo.augment.v1.AugmentService"
OPERATIONS = "/google.longrunning.Operations"


@pytest.fixture(scope="module")
def augment(loop: Loop) -> Iterator[Backend]:
    backend = Backend()
    loop.run(backend.start())
    yield backend
    loop.run(backend.stop())


@pytest.fixture(scope="module")
def automl(loop: Loop) -> Iterator[Backend]:
    backend = Backend()
    loop.run(backend.start())
    yield backend
    loop.run(backend.stop())


@pytest.fixture(scope="module")
def gateway(loop: Loop, augment: Backend, automl: Backend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    home = tmp_path_factory.mktemp("forward")
    settings = settings_for(
        home, augment_address=f"127.0.0.1:{augment.port}", automl_address=f"127.0.0.1:{automl.port}", translate_address="127.0.0.1:1"
    )
    with running_gateway(loop, settings, log_dir=home / "logs") as running:
        yield running


def test_unary_call_carries_metadata_deadline_and_request_id(gateway: RunningGateway, augment: Backend) -> None:
    seen: dict[str, Any] = {}

    async def get(request: dataset_pb2.GetDatasetRequest, context: Any) -> dataset_pb2.Dataset:
        seen["left"] = context.time_remaining()
        context.set_trailing_metadata((("x-cost", "7"),))
        return dataset_pb2.Dataset(name=request.name, sample_count=12)

    augment.methods[f"{DATASETS}/GetDataset"] = grpc.unary_unary_rpc_method_handler(
        get, dataset_pb2.GetDatasetRequest.FromString, dataset_pb2.Dataset.SerializeToString
    )
    stub = dataset_pb2_grpc.DatasetServiceStub(gateway.channel)
    response, call = stub.GetDataset.with_call(
        dataset_pb2.GetDatasetRequest(name="datasets/blood"), timeout=60, metadata=(("x-request-id", "abc"), ("x-custom", "kept"))
    )
    assert response.sample_count == 12
    assert 30 < seen["left"] < 61  # gRPC rounds a timeout up when it sends it
    assert augment.metadata["x-request-id"] == "abc"
    assert augment.metadata["x-custom"] == "kept"
    assert augment.metadata["authorization"] == f"Bearer {TOKEN}"
    assert dict(call.trailing_metadata())["x-cost"] == "7"


def test_error_of_a_service_keeps_reason_field_and_details(gateway: RunningGateway, augment: Backend) -> None:
    async def fail(request: bytes, context: Any) -> bytes:
        status = InvalidArgument("no such split", reason="BAD_SPLIT", field="split", metadata={"split": "dev"}).to_status()
        await context.abort(
            grpc.StatusCode.INVALID_ARGUMENT, status.message, (("grpc-status-details-bin", status.SerializeToString()), ("x-extra", "1"))
        )
        raise AssertionError

    augment.methods[f"{DATASETS}/ListSamples"] = grpc.unary_unary_rpc_method_handler(fail)
    stub = dataset_pb2_grpc.DatasetServiceStub(gateway.channel)
    with pytest.raises(grpc.RpcError) as caught:
        stub.ListSamples(dataset_pb2.ListSamplesRequest(parent="datasets/blood"))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details() == "no such split"
    assert details_of(caught.value)[:2] == ("BAD_SPLIT", {"split": "dev"})
    assert dict(caught.value.trailing_metadata())["x-extra"] == "1"


def test_upload_stream_arrives_whole_and_in_order(gateway: RunningGateway, augment: Backend) -> None:
    async def upload(requests: AsyncIterator[dataset_pb2.UploadDatasetRequest], context: Any) -> operations_pb2.Operation:
        sizes = [len(request.chunk) async for request in requests]
        return operations_pb2.Operation(name=",".join(str(size) for size in sizes))

    augment.methods[f"{DATASETS}/UploadDataset"] = grpc.stream_unary_rpc_method_handler(
        upload, dataset_pb2.UploadDatasetRequest.FromString, operations_pb2.Operation.SerializeToString
    )
    stub = dataset_pb2_grpc.DatasetServiceStub(gateway.channel)
    sizes = [1, 1 << 20, 77, 0, 5]
    operation = stub.UploadDataset(dataset_pb2.UploadDatasetRequest(chunk=b"x" * size) for size in sizes)
    assert operation.name == ",".join(map(str, sizes))


def test_bidirectional_stream_answers_while_it_is_read(gateway: RunningGateway, augment: Backend) -> None:
    async def echo(
        requests: AsyncIterator[augment_pb2.AugmentImagesRequest], context: Any
    ) -> AsyncIterator[augment_pb2.AugmentImagesResponse]:
        async for request in requests:
            yield augment_pb2.AugmentImagesResponse(key=request.item.key, image=image_pb2.EncodedImage(content=request.item.image.content))

    augment.methods[f"{AUGMENT}/AugmentImages"] = grpc.stream_stream_rpc_method_handler(
        echo, augment_pb2.AugmentImagesRequest.FromString, augment_pb2.AugmentImagesResponse.SerializeToString
    )
    stub = augment_pb2_grpc.AugmentServiceStub(gateway.channel)
    answered = threading.Semaphore(1)

    def requests() -> Iterator[augment_pb2.AugmentImagesRequest]:
        for number in range(20):
            # The next is sent only when the last was answered: nothing on the way may hoard messages.
            assert answered.acquire(timeout=60)
            item = augment_pb2.AugmentImagesRequest.Item(key=str(number), image=image_pb2.ImageSource(content=bytes([number]) * 10_000))
            yield augment_pb2.AugmentImagesRequest(item=item)

    keys = []
    for response in stub.AugmentImages(requests(), timeout=120):
        keys.append(response.key)
        answered.release()
    assert keys == [str(number) for number in range(20)]


def test_slow_reader_slows_the_service(gateway: RunningGateway, augment: Backend) -> None:
    sent = 0

    async def flood(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(400):
            yield b"x" * 500_000
            sent += 1

    augment.methods[f"{AUGMENT}/AugmentImages"] = grpc.stream_stream_rpc_method_handler(flood)
    call = gateway.channel.stream_stream(f"{AUGMENT}/AugmentImages")(iter(()), timeout=120)
    next(call)
    time.sleep(1.0)
    assert sent < 100, "200 MB were taken from the service although nobody reads them"
    call.cancel()


def test_cancelling_reaches_the_service(gateway: RunningGateway, augment: Backend) -> None:
    began, ended = threading.Event(), threading.Event()

    async def slow(request: bytes, context: Any) -> bytes:
        began.set()
        try:
            await asyncio.sleep(300)
        except asyncio.CancelledError:
            ended.set()
            raise
        return b""

    augment.methods[f"{AUGMENT}/PreviewAugmentation"] = grpc.unary_unary_rpc_method_handler(slow)
    call = gateway.channel.unary_unary(f"{AUGMENT}/PreviewAugmentation").future(b"")
    assert began.wait(patient(5))
    call.cancel()
    assert ended.wait(patient(5))


def test_deadline_ends_the_service_s_work(gateway: RunningGateway, augment: Backend) -> None:
    ended = threading.Event()

    async def slow(request: bytes, context: Any) -> bytes:
        try:
            await asyncio.sleep(300)
        except asyncio.CancelledError:
            ended.set()
            raise
        return b""

    augment.methods[f"{AUGMENT}/PreviewAugmentation"] = grpc.unary_unary_rpc_method_handler(slow)
    with pytest.raises(grpc.RpcError) as caught:
        gateway.channel.unary_unary(f"{AUGMENT}/PreviewAugmentation")(b"", timeout=0.5)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert ended.wait(patient(5))


def test_service_that_is_away_is_named_and_found_again(loop: Loop, gateway: RunningGateway, automl: Backend) -> None:
    async def get(request: automl_pb2.GetModelRequest, context: Any) -> automl_pb2.Model:
        return automl_pb2.Model(name=request.name)

    automl.methods["/oteo.automl.v1.AutoMLService/GetModel"] = grpc.unary_unary_rpc_method_handler(
        get, automl_pb2.GetModelRequest.FromString, automl_pb2.Model.SerializeToString
    )
    stub = automl_pb2_grpc.AutoMLServiceStub(gateway.channel)
    request = automl_pb2.GetModelRequest(name="models/m")
    assert stub.GetModel(request, timeout=60).name == "models/m"
    loop.run(automl.stop())
    with pytest.raises(grpc.RpcError) as caught:
        stub.GetModel(request, timeout=60)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    reason, metadata, delay = details_of(caught.value)
    assert (reason, metadata) == ("SERVICE_UNAVAILABLE", {"service": "automl"})
    assert delay is not None
    assert delay > 0
    loop.run(automl.start())

    def answered() -> bool:
        try:
            return bool(stub.GetModel(request, timeout=60).name)
        except grpc.RpcError:
            return False

    wait_for(answered, 10)


def test_service_s_own_unavailable_is_passed_on(gateway: RunningGateway, augment: Backend) -> None:
    async def busy(request: bytes, context: Any) -> bytes:
        await context.abort(grpc.StatusCode.UNAVAILABLE, "warming up")
        raise AssertionError

    augment.methods[f"{AUGMENT}/PreviewAugmentation"] = grpc.unary_unary_rpc_method_handler(busy)
    with pytest.raises(grpc.RpcError) as caught:
        gateway.channel.unary_unary(f"{AUGMENT}/PreviewAugmentation")(b"", timeout=60)
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.UNAVAILABLE, "warming up")


def test_method_newer_than_the_gateway_is_forwarded(gateway: RunningGateway, augment: Backend) -> None:
    async def new(request: bytes, context: Any) -> bytes:
        return request[::-1]

    augment.methods[f"{DATASETS}/FromTheFuture"] = grpc.unary_unary_rpc_method_handler(new)
    assert gateway.channel.unary_unary(f"{DATASETS}/FromTheFuture")(b"abc", timeout=60) == b"cba"


def test_unknown_service_and_missing_token_are_refused(gateway: RunningGateway) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        gateway.channel.unary_unary("/oteo.nothing.v1.Nothing/Call")(b"", timeout=60)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    with grpc.insecure_channel(gateway.address) as bare, pytest.raises(grpc.RpcError) as caught:
        bare.unary_unary(f"{DATASETS}/GetDataset")(b"", timeout=60)
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


def _operations(backend: Backend, service: str, count: int) -> None:
    """Have a backend list so many operations, older ones later, in pages of at most three."""
    shift = 1 if service == "automl" else 0
    names = [f"operations/{service}-{2 * number + shift:020d}" for number in range(count - 1, -1, -1)]

    async def list_(request: operations_pb2.ListOperationsRequest, context: Any) -> operations_pb2.ListOperationsResponse:
        start = int(request.page_token or 0)
        size = min(request.page_size, 3)
        page = operations_pb2.ListOperationsResponse(
            operations=[operations_pb2.Operation(name=name) for name in names[start : start + size]]
        )
        if start + size < count:
            page.next_page_token = str(start + size)
        return page

    async def get(request: operations_pb2.GetOperationRequest, context: Any) -> operations_pb2.Operation:
        return operations_pb2.Operation(name=request.name, done=True)

    backend.methods[f"{OPERATIONS}/ListOperations"] = grpc.unary_unary_rpc_method_handler(
        list_, operations_pb2.ListOperationsRequest.FromString, operations_pb2.ListOperationsResponse.SerializeToString
    )
    backend.methods[f"{OPERATIONS}/GetOperation"] = grpc.unary_unary_rpc_method_handler(
        get, operations_pb2.GetOperationRequest.FromString, operations_pb2.Operation.SerializeToString
    )


def test_operations_are_found_by_their_name_s_service(gateway: RunningGateway, augment: Backend, automl: Backend) -> None:
    _operations(augment, "augment", 1)
    _operations(automl, "automl", 1)
    stub = operations_pb2_grpc.OperationsStub(gateway.channel)
    for name in ("operations/augment-x", "operations/automl-y"):
        assert stub.GetOperation(operations_pb2.GetOperationRequest(name=name), timeout=60).name == name
    for name in ("operations/nobody-x", "operations/gateway-" + "0" * 20, "nonsense"):
        with pytest.raises(grpc.RpcError) as caught:
            stub.GetOperation(operations_pb2.GetOperationRequest(name=name), timeout=60)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("size", [1, 2, 4, 50])
def test_list_merges_all_services_once_each(gateway: RunningGateway, augment: Backend, automl: Backend, size: int) -> None:
    _operations(augment, "augment", 8)
    _operations(automl, "automl", 5)
    stub = operations_pb2_grpc.OperationsStub(gateway.channel)
    found: list[str] = []
    token = ""
    while True:
        request = operations_pb2.ListOperationsRequest(page_size=size, page_token=token, return_partial_success=True)
        page = stub.ListOperations(request, timeout=60)
        assert len(page.operations) <= size
        found += [operation.name for operation in page.operations]
        token = page.next_page_token
        if not token:
            break
    assert len(found) == len(set(found)) == 13
    assert sum("automl" in name for name in found) == 5
    ages = [name.rpartition("-")[2] for name in found]
    assert ages == sorted(ages, reverse=True)


def test_list_names_the_service_that_is_away(gateway: RunningGateway, augment: Backend, automl: Backend) -> None:
    _operations(augment, "augment", 2)
    _operations(automl, "automl", 2)
    stub = operations_pb2_grpc.OperationsStub(gateway.channel)
    page = stub.ListOperations(operations_pb2.ListOperationsRequest(return_partial_success=True), timeout=60)
    assert (len(page.operations), list(page.unreachable)) == (4, ["translate"])
    with pytest.raises(grpc.RpcError) as caught:
        stub.ListOperations(operations_pb2.ListOperationsRequest(), timeout=60)
    assert details_of(caught.value)[:2] == ("SERVICE_UNAVAILABLE", {"service": "translate"})
    only = stub.ListOperations(operations_pb2.ListOperationsRequest(name="operations/automl"), timeout=60)
    assert len(only.operations) == 2
    with pytest.raises(grpc.RpcError) as caught:
        stub.ListOperations(operations_pb2.ListOperationsRequest(page_token="rubbish"), timeout=60)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
