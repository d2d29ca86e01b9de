"""Exports and refusals over a real channel, with jobs as processes: what a caller sees, end to end."""

from __future__ import annotations

import sys
import uuid
from pathlib import Path

import grpc
import pytest
from google.longrunning import operations_pb2, operations_pb2_grpc
from google.rpc import status_pb2
from live_server import live_server
from model_packages import network, publish
from training_runs import Home
from waiting import patient

from oteo_automl.service import AutoML
from oteo_automl.settings import AutoMLSettings
from oteo_core.errors import from_status
from oteo_core.jobs import ProcessJobRunner
from oteo_core.server import sync_channel
from oteo_protos.automl.v1 import automl_pb2 as pb
from oteo_protos.automl.v1 import automl_pb2_grpc


@pytest.fixture(scope="module")
def automl(tmp_path_factory):
    """A service with one model that kept its network and one that did not; give its stubs."""
    home = tmp_path_factory.mktemp("automl")
    settings = AutoMLSettings(home=home, allow_anonymous=True, job_python=sys.executable, reconcile_seconds=0.1)
    runner = ProcessJobRunner(home / "jobs", executor="inline")
    service = AutoML(settings, runner)
    publish(service.operations.artifacts, "cells", network())
    Home(home).dataset("stripes", {"lying": (4, 2, 2), "standing": (4, 2, 2)})
    publish(service.operations.artifacts, "old", network(), keep=False)
    with live_server(settings, service.register) as server:
        server.run(service.start()).result(patient(30))
        channel = sync_channel(server.address, settings)
        yield automl_pb2_grpc.AutoMLServiceStub(channel), operations_pb2_grpc.OperationsStub(channel)
        channel.close()
        server.run(service.stop()).result(patient(30))
    runner.close()


def test_an_export_runs_as_a_job_and_a_replay_gives_the_same(automl, tmp_path):
    models, operations = automl
    request = pb.ExportModelRequest(
        name="models/cells", format=pb.MODEL_FORMAT_ONNX, destination_uri=str(tmp_path / "out.zip"), request_id=str(uuid.uuid4())
    )
    operation = models.ExportModel(request)
    assert models.ExportModel(request).name == operation.name
    waiting = operations_pb2.WaitOperationRequest(name=operation.name)
    waiting.timeout.FromSeconds(round(patient(40)))
    done = operations.WaitOperation(waiting)
    assert done.done
    assert not done.HasField("error"), done.error.message
    response = pb.ExportModelResponse()
    assert done.response.Unpack(response)
    assert Path(response.uri) == tmp_path / "out.zip"
    assert (tmp_path / "out.zip").stat().st_size > 1000
    assert models.ExportModel(request).name == operation.name


@pytest.mark.parametrize(
    ("fields", "code", "reason", "field"),
    [
        ({"name": "models/none", "format": pb.MODEL_FORMAT_ONNX}, "NOT_FOUND", "MODEL_NOT_FOUND", "name"),
        ({"name": "models/old", "format": pb.MODEL_FORMAT_PYTORCH}, "FAILED_PRECONDITION", "NO_NETWORK_FILE", "format"),
        (
            {"name": "models/old", "format": pb.MODEL_FORMAT_ONNX, "destination_uri": "relative"},
            "INVALID_ARGUMENT",
            "BAD_DESTINATION_URI",
            "destination_uri",
        ),
        (
            {"name": "models/old", "format": pb.MODEL_FORMAT_ONNX, "destination_uri": "/usr"},
            "FAILED_PRECONDITION",
            "DESTINATION_NOT_EMPTY",
            "destination_uri",
        ),
        ({"name": "models/old"}, "INVALID_ARGUMENT", None, "format"),
    ],
)
def test_what_cannot_be_written_is_refused_at_once(automl, fields, code, reason, field):
    with pytest.raises(grpc.RpcError) as caught:
        automl[0].ExportModel(pb.ExportModelRequest(**fields))
    assert caught.value.code().name == code
    error = from_status(status_pb2.Status.FromString(dict(caught.value.trailing_metadata())["grpc-status-details-bin"]))
    assert error.field == field
    if reason:
        assert error.reason == reason


def test_the_hub_is_asked_only_where_the_service_may(automl, tmp_path):
    request = pb.TrainModelRequest(dataset="datasets/stripes", pretrained_uri="hub:#resnet18@0123abcd")
    request.budget.seconds = 60
    with pytest.raises(grpc.RpcError) as caught:
        automl[0].TrainModel(request)
    error = from_status(status_pb2.Status.FromString(dict(caught.value.trailing_metadata())["grpc-status-details-bin"]))
    assert (error.reason, error.field) == ("HUB_NOT_ALLOWED", "pretrained_uri")
    with pytest.raises(ValueError, match="allow_hub is off"):
        AutoMLSettings(home=tmp_path, pretrained_uri="hub:")
    assert AutoMLSettings(home=tmp_path, pretrained_uri="hub:", allow_hub=True).pretrained_uri == "hub:"
