"""MeasureShift from the call to what is published: over gRPC, with the service's own job."""

from __future__ import annotations

import uuid
from urllib.parse import urlsplit

import grpc
import numpy as np
import pytest
from google.longrunning import operations_pb2, operations_pb2_grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from judged_models import publish
from live_server import live_server
from shift_sets import textured, write
from thread_runner import ThreadRunner
from waiting import patient, wait_done

from oteo_core.artifacts import open_store
from oteo_core.errors import InvalidArgument
from oteo_core.jobs.testing import run_handler
from oteo_core.server import sync_channel
from oteo_protos.translate.v1 import translate_pb2 as pb
from oteo_protos.translate.v1 import translate_pb2_grpc
from oteo_translate.job import HANDLERS
from oteo_translate.service import Translate
from oteo_translate.settings import TranslateSettings


def some(count, start=0, **drawing):
    return [textured(start + index, **drawing) for index in range(count)]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Give a channel to a running translate whose jobs run in threads, and its store with a few sets and a model."""
    settings = TranslateSettings(home=tmp_path_factory.mktemp("home"), token="a-token", reconcile_seconds=0.05)
    store = open_store(settings)
    names = ("dark", "middle", "light")
    turn = [names[index % 3] for index in range(33)]
    write(store, "home", [textured(i, level=(0.35, 0.62, 0.9)[i % 3]) for i in range(33)], labels=turn)
    write(store, "new", [textured(500 + i, level=(0.5, 0.77, 1.0)[i % 3], noise=0.12) for i in range(24)], labels=[None] * 24)
    write(store, "plain", some(14, 100))
    write(store, "few", some(3, 900))
    publish(store, "classification")
    publish(store, "classification", "orphan")
    path = "models/orphan/package.json"
    store.write_bytes(path, store.read_bytes(path).replace(b"datasets/home", b"datasets/gone"))
    translate = Translate(settings, ThreadRunner(settings, store, HANDLERS))
    translate.start()
    with live_server(settings, translate.register) as server, sync_channel(server.address, settings) as channel:
        yield channel, settings, store
    translate.stop()


def finished(channel, operation):
    operations = operations_pb2_grpc.OperationsStub(channel)
    request = operations_pb2.GetOperationRequest(name=operation.name)
    return wait_done(lambda: operations.GetOperation(request, timeout=patient(10)), 40)


def test_a_model_and_a_dataset_become_a_verdict_and_a_page(world):
    channel, _, store = world
    stub = translate_pb2_grpc.TranslateServiceStub(channel)
    request = pb.MeasureShiftRequest(model="models/judged", dataset="datasets/new", seed=1, request_id=str(uuid.uuid4()))
    begun = stub.MeasureShift(request, timeout=patient(10))
    assert stub.MeasureShift(request, timeout=patient(10)).name == begun.name
    done = finished(channel, begun)
    response, metadata = pb.MeasureShiftResponse(), pb.MeasureShiftMetadata()
    assert done.response.Unpack(response), done.error
    assert done.metadata.Unpack(metadata)
    assert (metadata.dataset, metadata.progress.fraction) == ("datasets/new", 1.0)
    assert "look different" in metadata.progress.message
    assert response.kind == pb.SHIFT_KIND_COVARIATE
    tests = {(test.test, test.feature): test for test in response.tests}
    assert {test for test, _ in tests} == {"mmd", "ks", "c2st", "prevalence"}
    assert {feature for _, feature in tests} == {"intensity", "output", "embedding", "answers"}
    assert tests["c2st", "intensity"].p_value < 0.05
    assert tests["c2st", "intensity"].effect_size > 0.9
    assert all(0 < test.detectable_effect <= 1.5 for test in response.tests)
    assert response.expected_loss.name == "accuracy_loss"
    assert response.expected_loss.lower <= response.expected_loss.value <= response.expected_loss.upper
    assert len(set(response.extreme_samples)) == 10
    assert all(name.startswith("datasets/new/samples/s") for name in response.extreme_samples)
    page = store.read_bytes(f"shifts/{begun.name.removeprefix('operations/')}/report.html").decode()
    assert urlsplit(response.report_uri).path.endswith("/report.html")
    assert "without labels" in page


@pytest.mark.parametrize(
    ("request_", "code", "reason", "field"),
    [
        (pb.MeasureShiftRequest(model="models/none", dataset="datasets/new"), "NOT_FOUND", "MODEL_NOT_FOUND", "model"),
        (pb.MeasureShiftRequest(model="models/judged", dataset="datasets/none"), "NOT_FOUND", "DATASET_NOT_FOUND", "dataset"),
        (
            pb.MeasureShiftRequest(reference_dataset="datasets/none", dataset="datasets/new"),
            "NOT_FOUND",
            "DATASET_NOT_FOUND",
            "reference_dataset",
        ),
        (pb.MeasureShiftRequest(model="models/orphan", dataset="datasets/new"), "FAILED_PRECONDITION", "HOME_DATASET_GONE", "model"),
        (pb.MeasureShiftRequest(model="models/judged", dataset="datasets/home"), "INVALID_ARGUMENT", "SAME_DATASET", "dataset"),
        (pb.MeasureShiftRequest(reference_dataset="datasets/new", dataset="datasets/new"), "INVALID_ARGUMENT", "SAME_DATASET", "dataset"),
    ],
)
def test_what_cannot_be_compared_is_refused_at_once(world, request_, code, reason, field):
    with pytest.raises(grpc.RpcError) as caught:
        translate_pb2_grpc.TranslateServiceStub(world[0]).MeasureShift(request_, timeout=patient(10))
    assert caught.value.code().name == code
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for detail in rpc_status.from_call(caught.value).details:
        detail.Unpack(info) or detail.Unpack(bad)
    assert info.reason == reason
    assert bad.field_violations[0].field == field


def test_what_only_the_images_tell_fails_the_operation_with_the_reason(world):
    channel, _, _ = world
    stub = translate_pb2_grpc.TranslateServiceStub(channel)
    done = finished(
        channel, stub.MeasureShift(pb.MeasureShiftRequest(reference_dataset="datasets/home", dataset="datasets/few"), timeout=patient(10))
    )
    assert done.error.message == "datasets/few has 3 images; 8 are needed"
    info = error_details_pb2.ErrorInfo()
    assert any(detail.Unpack(info) for detail in done.error.details)
    assert info.reason == "TOO_FEW_IMAGES"


def _run(world, **options):
    _, settings, store = world
    request = pb.MeasureShiftRequest(reference_dataset="datasets/home", dataset="datasets/plain")
    response = pb.MeasureShiftResponse()
    assert run_handler(HANDLERS["MeasureShift"], request, settings=settings, artifacts=store, **options).Unpack(response)
    return response


def test_the_same_seed_gives_the_same_figures_and_a_second_attempt_the_first_answer(world, monkeypatch):
    first = _run(world, operation_id="translate-aaaaaaaaaaaaaaaaaaaa")
    other = _run(world, operation_id="translate-bbbbbbbbbbbbbbbbbbbb")
    assert list(first.tests) == list(other.tests)
    assert list(first.extreme_samples) == list(other.extreme_samples)

    def never(*_, **__):
        raise AssertionError("it was measured again")

    monkeypatch.setattr("oteo_translate.measure_job.study", never)
    assert _run(world, operation_id="translate-aaaaaaaaaaaaaaaaaaaa", attempt=2) == first


def test_a_job_that_is_to_stop_stops_between_tests_and_publishes_nothing(world, monkeypatch):
    _, _, store = world
    asked = []

    class Stopped(InvalidArgument):
        pass

    def check(self):
        asked.append(1)
        if len(asked) > 6:
            raise Stopped("asked to stop", reason="STOPPED")

    monkeypatch.setattr("oteo_core.jobs.context.JobContext.check", check)
    with pytest.raises(InvalidArgument, match="asked to stop"):
        _run(world, operation_id="translate-cccccccccccccccccccc")
    assert not store.exists("shifts/translate-cccccccccccccccccccc")


def test_a_rolling_test_of_a_stream_needs_no_dataset():
    from oteo_translate.shift.features import Feature, intensity, intensity_columns
    from oteo_translate.shift.measure import measure_shift

    home = intensity(some(24))
    stream = some(16, 300) + some(16, 400, level=0.3)
    kinds = []
    for start in (0, 16):
        window = intensity(np.stack(stream[start : start + 16]))
        kinds.append(measure_shift([Feature("intensity", home, window, intensity_columns(3))], [""] * 24, [""] * 16, alpha=0.01).kind)
    assert kinds == ["none", "covariate"]
