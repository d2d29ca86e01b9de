"""What every server of ours does with a call: identity, validation, errors, deadlines, streams, limits."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
import uuid
from collections.abc import Iterator

import grpc
import pytest
import structlog
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from live_server import LiveServer, live_server
from waiting import patient, wait_for

from oteo_core import telemetry
from oteo_core.context import current
from oteo_core.errors import FailedPrecondition, NotFound, ResourceExhausted
from oteo_core.refusals import RefusalLimit, RefusalLines
from oteo_core.server import sync_channel
from oteo_core.settings import CoreSettings
from oteo_protos.augment.v1 import dataset_pb2, dataset_pb2_grpc
from oteo_protos.automl.v1 import automl_pb2, automl_pb2_grpc
from oteo_protos.gateway.v1 import inference_pb2, inference_pb2_grpc

TOKEN = "a-token-for-the-tests"
SEEN: dict[str, object] = {}


class Datasets(dataset_pb2_grpc.DatasetServiceServicer):
    """Handlers that block."""

    def GetDataset(self, request, context):
        name = request.name.removeprefix("datasets/")
        if name == "slow":
            SEEN["ended"] = threading.Event()
            while not current().cancelled.is_set():
                time.sleep(0.01)
            SEEN["ended"].set()
        elif name == "finishes":
            SEEN["began"].set()
            time.sleep(0.6)
        elif name == "full":
            raise OSError(28, "No space left on device", "/data/x")
        elif name == "bug":
            raise KeyError("secret value of a patient")
        elif name == "busy":
            raise ResourceExhausted("try later", reason="BUSY", retry_after=2.5)
        elif name != "there":
            raise NotFound(f"no dataset {name}", reason="DATASET_NOT_FOUND", field="name")
        return dataset_pb2.Dataset(name=request.name, display_name=current().request_id, uid=current().caller)

    def UploadDataset(self, request_iterator, context):
        count = sum(len(request.chunk) for request in request_iterator)
        from google.longrunning import operations_pb2

        return operations_pb2.Operation(name=f"operations/{count}")


class Models(automl_pb2_grpc.AutoMLServiceServicer):
    """Handlers that await."""

    async def GetModel(self, request, context):
        if request.name.endswith("slow"):
            SEEN["ended"] = threading.Event()
            try:
                await asyncio.sleep(300)
            except asyncio.CancelledError:
                SEEN["ended"].set()
                raise
        if request.name.endswith("gone"):
            raise FailedPrecondition("not now")
        return automl_pb2.Model(name=request.name, display_name=current().request_id)


class Inference(inference_pb2_grpc.InferenceServiceServicer):
    """A stream both ways, as an asynchronous generator."""

    async def PredictStream(self, request_iterator, context):
        async for request in request_iterator:
            if request.key == "stop":
                raise NotFound("no more", reason="NO_MORE")
            yield inference_pb2.PredictStreamResponse(key=request.key)


class SyncInference(inference_pb2_grpc.InferenceServiceServicer):
    """A stream both ways, as a plain generator."""

    def PredictStream(self, request_iterator, context) -> Iterator[inference_pb2.PredictStreamResponse]:
        SEEN["ended"] = threading.Event()
        try:
            for request in request_iterator:
                yield inference_pb2.PredictStreamResponse(key=request.key)
        finally:
            SEEN["ended"].set()


def _register(inference):
    def register(server):
        dataset_pb2_grpc.add_DatasetServiceServicer_to_server(Datasets(), server)
        automl_pb2_grpc.add_AutoMLServiceServicer_to_server(Models(), server)
        inference_pb2_grpc.add_InferenceServiceServicer_to_server(inference, server)
        return ("oteo.augment.v1.DatasetService", "oteo.automl.v1.AutoMLService", "oteo.gateway.v1.InferenceService")

    return register


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    return CoreSettings(home=tmp_path_factory.mktemp("home"), token=TOKEN, max_message_bytes=2 * 1024 * 1024)


@pytest.fixture(scope="module")
def server(settings) -> Iterator[LiveServer]:
    with live_server(settings, _register(Inference())) as running:
        yield running


@pytest.fixture(scope="module")
def channel(server, settings):
    with sync_channel(server.address, settings) as opened:
        yield opened


@pytest.fixture
def datasets(channel):
    return dataset_pb2_grpc.DatasetServiceStub(channel)


@pytest.fixture
def models(channel):
    return automl_pb2_grpc.AutoMLServiceStub(channel)


def _details(error, kind):
    for detail in rpc_status.from_call(error).details:
        found = kind()
        if detail.Unpack(found):
            return found
    return None


def _get(stub, name, **options):
    return stub.GetDataset(dataset_pb2.GetDatasetRequest(name=f"datasets/{name}"), **options)


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ((), "TOKEN_MISSING"),
        ((("authorization", "Basic eDp5"),), "TOKEN_MISSING"),
        ((("authorization", "Bearer wrong"),), "TOKEN_INVALID"),
        ((("authorization", "Bearer "),), "TOKEN_MISSING"),
    ],
)
def test_a_call_without_the_token_is_refused(server, metadata, reason):
    with grpc.insecure_channel(server.address) as plain, pytest.raises(grpc.RpcError) as caught:
        _get(dataset_pb2_grpc.DatasetServiceStub(plain), "there", metadata=metadata, timeout=60)
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert _details(caught.value, error_details_pb2.ErrorInfo).reason == reason
    assert TOKEN not in caught.value.details()


def test_a_stream_without_the_token_is_refused_before_it_is_read(server):
    sent = []

    def pieces():
        for number in range(1000):
            sent.append(number)
            yield dataset_pb2.UploadDatasetRequest(chunk=bytes(1024 * 1024))

    with grpc.insecure_channel(server.address) as plain, pytest.raises(grpc.RpcError) as caught:
        dataset_pb2_grpc.DatasetServiceStub(plain).UploadDataset(pieces(), timeout=60)
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert len(sent) < 100


def test_the_right_token_passes(datasets):
    assert _get(datasets, "there", timeout=60).name == "datasets/there"


def test_request_id_goes_in_and_comes_out(datasets):
    wanted = str(uuid.uuid4())
    answer, call = datasets.GetDataset.with_call(
        dataset_pb2.GetDatasetRequest(name="datasets/there"), metadata=(("x-request-id", wanted),), timeout=60
    )
    assert answer.display_name == wanted
    assert dict(call.trailing_metadata())["x-request-id"] == wanted


def test_a_request_without_id_is_given_one(models):
    assert len(models.GetModel(automl_pb2.GetModelRequest(name="models/x"), timeout=60).display_name) == 32


def test_a_broken_rule_names_its_field(datasets):
    with pytest.raises(grpc.RpcError) as caught:
        datasets.GetDataset(dataset_pb2.GetDatasetRequest(name="Datasets/UP"), timeout=60)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert _details(caught.value, error_details_pb2.ErrorInfo).reason == "INVALID_REQUEST"
    assert [v.field for v in _details(caught.value, error_details_pb2.BadRequest).field_violations] == ["name"]


def test_nested_and_several_broken_rules_are_all_named(datasets):
    request = dataset_pb2.ImportDatasetRequest(split=dataset_pb2.SplitOptions(train=2), classes=["a", "a"])
    with pytest.raises(grpc.RpcError) as caught:
        datasets.ImportDataset(request, timeout=60)
    fields = {v.field for v in _details(caught.value, error_details_pb2.BadRequest).field_violations}
    assert {"source_uri", "classes", "split.train"} <= fields


def test_a_message_of_a_stream_is_checked_too(datasets):
    bad = dataset_pb2.UploadDatasetRequest(file=dataset_pb2.UploadDatasetRequest.File(path="", size=1))
    with pytest.raises(grpc.RpcError) as caught:
        datasets.UploadDataset(iter([bad]), timeout=60)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert _details(caught.value, error_details_pb2.BadRequest).field_violations[0].field == "file.path"


@pytest.mark.parametrize(
    ("name", "code", "reason"),
    [
        ("missing", grpc.StatusCode.NOT_FOUND, "DATASET_NOT_FOUND"),
        ("full", grpc.StatusCode.RESOURCE_EXHAUSTED, "DISK_FULL"),
        ("busy", grpc.StatusCode.RESOURCE_EXHAUSTED, "BUSY"),
        ("bug", grpc.StatusCode.INTERNAL, "UNEXPECTED_ERROR"),
    ],
)
def test_errors_carry_code_and_reason(datasets, name, code, reason):
    with pytest.raises(grpc.RpcError) as caught:
        _get(datasets, name, timeout=60)
    assert caught.value.code() is code
    info = _details(caught.value, error_details_pb2.ErrorInfo)
    assert (info.reason, info.domain) == (reason, "oteo")
    if name == "missing":
        assert _details(caught.value, error_details_pb2.BadRequest).field_violations[0].field == "name"
    if name == "busy":
        assert _details(caught.value, error_details_pb2.RetryInfo).retry_delay.ToNanoseconds() == 2_500_000_000


def test_an_unexpected_error_tells_the_caller_an_incident_and_nothing_else(datasets):
    with pytest.raises(grpc.RpcError) as caught:
        _get(datasets, "bug", timeout=60)
    incident = _details(caught.value, error_details_pb2.ErrorInfo).metadata["incident"]
    assert incident in caught.value.details()
    assert "patient" not in caught.value.details() + str(rpc_status.from_call(caught.value))


def test_a_method_that_no_handler_answers_is_unimplemented_with_a_message(datasets):
    with pytest.raises(grpc.RpcError) as caught:
        datasets.ListDatasets(dataset_pb2.ListDatasetsRequest(), timeout=60)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert "ListDatasets" in caught.value.details()


def test_a_message_over_the_limit_is_refused(datasets, server, settings):
    request = dataset_pb2.ImportDatasetRequest(source_uri="x", labels={"big": "x" * (3 * 1024 * 1024)})
    with grpc.insecure_channel(server.address) as plain, pytest.raises(grpc.RpcError) as caught:
        dataset_pb2_grpc.DatasetServiceStub(plain).ImportDataset(request, metadata=(("authorization", f"Bearer {TOKEN}"),), timeout=60)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_deadline_stops_the_handler(datasets, models, kind):
    blocking, request = datasets.GetDataset, dataset_pb2.GetDatasetRequest(name="datasets/slow")
    if kind == "async":
        blocking, request = models.GetModel, automl_pb2.GetModelRequest(name="models/slow")
    SEEN.pop("ended", None)
    with pytest.raises(grpc.RpcError) as caught:
        blocking(request, timeout=1.0)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert SEEN["ended"].wait(patient(2))


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_caller_who_goes_stops_the_handler(datasets, models, kind):
    SEEN.pop("ended", None)
    if kind == "sync":
        call = datasets.GetDataset.future(dataset_pb2.GetDatasetRequest(name="datasets/slow"))
    else:
        call = models.GetModel.future(automl_pb2.GetModelRequest(name="models/slow"))
    wait_for(lambda: "ended" in SEEN, 5, pause=0.01)
    call.cancel()
    assert SEEN["ended"].wait(patient(2))


def test_streams_go_both_ways_and_end_with_the_handlers_error(channel):
    stub = inference_pb2_grpc.InferenceServiceStub(channel)
    keys = ["a", "b", "stop", "c"]
    requests = [inference_pb2.PredictStreamRequest(key=key, request=_predict()) for key in keys]
    got: list[str] = []
    answers = stub.PredictStream(iter(requests), timeout=60)
    with pytest.raises(grpc.RpcError) as caught:
        got.extend(answer.key for answer in answers)
    assert got == ["a", "b"]
    assert _details(caught.value, error_details_pb2.ErrorInfo).reason == "NO_MORE"


def _predict():
    request = inference_pb2.PredictRequest(deployment="deployments/x")
    request.image.content = b"x"
    return request


def test_a_plain_generator_answers_a_stream_and_ends_when_the_caller_goes(settings):
    with live_server(settings, _register(SyncInference())) as server, sync_channel(server.address, settings) as channel:
        stub = inference_pb2_grpc.InferenceServiceStub(channel)
        requests = [inference_pb2.PredictStreamRequest(key=str(n), request=_predict()) for n in range(50)]
        assert [answer.key for answer in stub.PredictStream(iter(requests), timeout=60)] == [str(n) for n in range(50)]

        more = threading.Event()

        def endless():
            yield requests[0]
            more.wait(patient(10))

        answers = stub.PredictStream(endless())
        assert next(answers).key == "0"
        SEEN["ended"].clear()
        answers.cancel()
        more.set()
        assert SEEN["ended"].wait(patient(3))


def test_an_upload_is_read_in_a_thread(datasets):
    chunks = (dataset_pb2.UploadDatasetRequest(chunk=bytes(1000)) for _ in range(20))
    assert datasets.UploadDataset(chunks, timeout=60).name == "operations/20000"


def test_bytes_are_forwarded_by_a_generic_handler_under_the_same_rules(settings):
    class Forward(grpc.GenericRpcHandler):
        def service(self, details):
            async def echo(request, context):
                assert isinstance(request, bytes)
                return request

            return grpc.unary_unary_rpc_method_handler(echo) if details.method == "/any.Service/Echo" else None

    with live_server(settings, lambda _: (), [Forward()]) as server:
        with sync_channel(server.address, settings) as channel:
            assert channel.unary_unary("/any.Service/Echo")(b"\x00\xff not a protobuf", timeout=60) == b"\x00\xff not a protobuf"
            with pytest.raises(grpc.RpcError) as caught:
                channel.unary_unary("/any.Service/Other")(b"", timeout=60)
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        with grpc.insecure_channel(server.address) as plain, pytest.raises(grpc.RpcError) as caught:
            plain.unary_unary("/any.Service/Echo")(b"x", timeout=60)
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_the_log_is_json_with_the_request_id_and_neither_token_nor_payload(server, settings, datasets, capfd):
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        telemetry.configure_logging(settings, "augment")
        with pytest.raises(grpc.RpcError):
            _get(datasets, "bug", metadata=(("x-request-id", "the-request"),), timeout=60)
        said: list[str] = []

        def told() -> bool:
            said.append(capfd.readouterr().err)
            return all(f'"event": "{event}"' in "".join(said) for event in ("unexpected error", "call"))

        wait_for(told)
    finally:
        root.handlers[:], root.level = handlers, level
        structlog.reset_defaults()
    text = "".join(said)
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    call = next(line for line in lines if line["event"] == "call")
    assert call["request_id"] == "the-request"
    assert call["service"] == "augment"
    assert call["code"] == "INTERNAL"
    assert call["method"].endswith("GetDataset")
    error = next(line for line in lines if line["event"] == "unexpected error")
    assert error["incident"]
    assert TOKEN not in text


class Full:
    """There is room for calls that wait a minute at least."""

    def waits(self, method: str) -> bool:
        return method.endswith("/GetModel")

    def check(self, method: str, caller: str, remaining: float | None) -> None:
        if remaining is not None and remaining < 60:
            raise ResourceExhausted("no room", reason="NOT_IN_TIME", retry_after=1.5)


def test_a_call_that_there_is_no_room_for_is_refused_before_its_message_is_read(settings):
    read: list[bytes] = []

    def reading(data: bytes) -> automl_pb2.GetModelRequest:
        read.append(data)
        return automl_pb2.GetModelRequest.FromString(data)

    def register(server):
        handler = grpc.unary_unary_rpc_method_handler(
            Models().GetModel, request_deserializer=reading, response_serializer=automl_pb2.Model.SerializeToString
        )
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("oteo.automl.v1.AutoMLService", {"GetModel": handler}),))
        return ("oteo.automl.v1.AutoMLService",)

    request = automl_pb2.GetModelRequest(name="models/there")
    with live_server(settings, register, crowd=Full()) as running, sync_channel(running.address, settings) as opened:
        models = automl_pb2_grpc.AutoMLServiceStub(opened)
        with pytest.raises(grpc.RpcError) as caught:
            models.GetModel(request, timeout=10, metadata=(("x-request-id", "mine"),))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert _details(caught.value, error_details_pb2.ErrorInfo).reason == "NOT_IN_TIME"
        assert _details(caught.value, error_details_pb2.RetryInfo).retry_delay.ToMilliseconds() == 1500
        assert ("x-request-id", "mine") in tuple(caught.value.trailing_metadata())
        assert not read
        # Whoever has the time is answered as ever, validation and all.
        assert models.GetModel(request, timeout=100).name == "models/there"
        with pytest.raises(grpc.RpcError) as invalid:
            models.GetModel(automl_pb2.GetModelRequest(name="no model"), timeout=100)
        assert invalid.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert len(read) == 2


def test_refusals_by_the_thousand_are_summed_in_the_log():
    lines: list[dict[str, object]] = []

    class Log:
        def warning(self, event: str, **values: object) -> None:
            lines.append({"event": event, **values})

    async def scenario() -> list[bool]:
        refusals = RefusalLines(Log(), RefusalLimit(burst=2, rate=0.001))
        found = [refusals.allow("/a.B/C", "RESOURCE_EXHAUSTED", "TOO_MANY_REQUESTS") for _ in range(5)]
        for number in range(150):
            refusals.allow(f"/a.B/made-up-{number}", "UNAUTHENTICATED", "TOKEN_MISSING")
        refusals._tell()
        return found

    assert asyncio.run(scenario()) == [True, True, False, False, False]
    assert lines[0] == {
        "event": "calls refused",
        "method": "/a.B/C",
        "code": "RESOURCE_EXHAUSTED",
        "reason": "TOO_MANY_REQUESTS",
        "count": 3,
    }
    assert len(lines) <= 101, "names that somebody makes up are no lines without end"
    assert sum(int(str(line["count"])) for line in lines) == 153


def test_names_of_methods_that_somebody_makes_up_are_no_metrics_without_end():
    for number in range(2000):
        telemetry.figures_of(f"/made.Up/{number}").ended("UNAUTHENTICATED", 0.001)
    assert telemetry.figures_of("/made.Up/1998") is telemetry.figures_of("/made.Up/1999")
    assert len(telemetry._METHODS) <= telemetry._MOST_METHODS + 1
