"""translate without a translator: it answers plainly, and its operations are served."""

from __future__ import annotations

import grpc
import pytest
from google.longrunning import operations_pb2, operations_pb2_grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from live_server import live_server
from waiting import patient

from oteo_core.server import sync_channel
from oteo_protos.translate.v1 import translate_pb2, translate_pb2_grpc
from oteo_translate.service import Translate
from oteo_translate.settings import TranslateSettings


@pytest.fixture(scope="module")
def channel(tmp_path_factory):
    """Give a channel to a running translate."""
    settings = TranslateSettings(home=tmp_path_factory.mktemp("home"), token="a-token")
    translate = Translate(settings, None)
    translate.start()
    with live_server(settings, translate.register) as server, sync_channel(server.address, settings) as opened:
        yield opened
    translate.stop()


@pytest.fixture
def stub(channel):
    """Give the service's stub."""
    return translate_pb2_grpc.TranslateServiceStub(channel)


def _reason(error):
    info = error_details_pb2.ErrorInfo()
    assert any(detail.Unpack(info) for detail in rpc_status.from_call(error).details)
    return info.reason


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (translate_pb2.TranslateImagesRequest(settings={"translator": "translators/t"}), "TRANSLATOR_NOT_FOUND"),
        (translate_pb2.TranslateImagesRequest(item={"key": "a"}), "SETTINGS_MISSING"),
    ],
)
def test_a_stream_that_cannot_be_answered_ends_at_once(stub, request_, reason):
    with pytest.raises(grpc.RpcError) as caught:
        list(stub.TranslateImages(iter([request_]), timeout=patient(10)))
    assert _reason(caught.value) == reason


def test_bad_input_is_named(stub):
    with pytest.raises(grpc.RpcError) as caught:
        stub.MeasureShift(translate_pb2.MeasureShiftRequest(dataset="d"), timeout=patient(10))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_there_are_no_translators(stub):
    assert not stub.ListTranslators(translate_pb2.ListTranslatorsRequest(page_size=10), timeout=patient(10)).translators
    for method, request in (
        (stub.GetTranslator, translate_pb2.GetTranslatorRequest(name="translators/t")),
        (stub.DeleteTranslator, translate_pb2.DeleteTranslatorRequest(name="translators/t")),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            method(request, timeout=patient(10))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        assert _reason(caught.value) == "TRANSLATOR_NOT_FOUND"
    stub.DeleteTranslator(translate_pb2.DeleteTranslatorRequest(name="translators/t", allow_missing=True), timeout=patient(10))
    with pytest.raises(grpc.RpcError) as caught:
        stub.ListTranslators(translate_pb2.ListTranslatorsRequest(page_token="made-up"), timeout=patient(10))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_its_operations_are_served(channel):
    operations = operations_pb2_grpc.OperationsStub(channel)
    assert not operations.ListOperations(operations_pb2.ListOperationsRequest(name="operations"), timeout=patient(10)).operations
    with pytest.raises(grpc.RpcError) as caught:
        operations.GetOperation(operations_pb2.GetOperationRequest(name="operations/translate-00000000000000000000"), timeout=patient(10))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
