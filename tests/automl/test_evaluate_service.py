"""EvaluateModel and CombinePredictions from the call to what is published, by the service and its jobs."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest
from judged_models import dataset, publish, shade, square
from thread_runner import ThreadRunner
from waiting import wait_done

from oteo_automl.automl_service import AutoMLService
from oteo_automl.job import HANDLERS
from oteo_automl.settings import AutoMLSettings
from oteo_core.artifacts import open_store
from oteo_core.errors import InvalidArgument, NotFound
from oteo_core.operations import OperationManager, OperationStore
from oteo_protos.automl.v1 import automl_pb2


@pytest.fixture
def world(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("OTEO_EXECUTOR", "inline")
    settings = AutoMLSettings(home=tmp_path, reconcile_seconds=0.05, allow_anonymous=True)
    artifacts = open_store(settings)
    rows = OperationStore(settings.database_url)
    manager = OperationManager(settings, "automl", rows, artifacts, ThreadRunner(settings, artifacts, HANDLERS))
    manager.start_reconciler()
    yield AutoMLService(settings, manager, artifacts), manager, artifacts
    manager.close()
    rows.close()


def finished(manager, operation):
    return wait_done(lambda: manager.get(operation.name), 30)


def test_from_the_call_to_the_files(world):
    service, manager, artifacts = world
    publish(artifacts, "detection")

    def draw(index):
        pixels, box = square(index)
        return pixels, {"boxes": (box,)}

    dataset(artifacts, "other", "detection", ("green", "red"), draw, 6)
    request = automl_pb2.EvaluateModelRequest(name="models/judged", dataset="datasets/other", request_id=str(uuid.uuid4()))
    begun = service.EvaluateModel(request, None)
    assert service.EvaluateModel(request, None).name == begun.name
    done = finished(manager, begun)
    judged = automl_pb2.EvaluateModelResponse()
    assert done.response.Unpack(judged), done.error
    assert next(m.value for m in judged.metrics if m.name == "recall" and not m.class_name) == 1.0
    metadata = automl_pb2.EvaluateModelMetadata()
    assert done.metadata.Unpack(metadata)
    assert (metadata.model, metadata.dataset, metadata.progress.fraction) == ("models/judged", "datasets/other", 1.0)
    listed = service.ListEvaluations(automl_pb2.ListEvaluationsRequest(model="models/judged"), None)
    assert list(listed.evaluations) == [judged]
    assert judged.operation == begun.name
    elsewhere = automl_pb2.ListEvaluationsRequest(dataset="datasets/elsewhere")
    assert not service.ListEvaluations(elsewhere, None).evaluations
    inputs = [{"uri": judged.predictions_uri}, {"uri": judged.predictions_uri}]
    together = automl_pb2.CombinePredictionsRequest(inputs=inputs, method=automl_pb2.COMBINATION_METHOD_WEIGHTED_BOX_FUSION)
    done = finished(manager, service.CombinePredictions(together, None))
    combined = automl_pb2.CombinePredictionsResponse()
    assert done.response.Unpack(combined), done.error
    assert (combined.image_count, combined.object_count) == (6, 6)


def test_what_cannot_be_judged_is_refused_at_once(world):
    service, _, artifacts = world
    publish(artifacts, "classification")
    dataset(artifacts, "strange", "classification", ("purple",), lambda index: (shade(index, 0.5), {"labels": ("purple",)}), 3)
    with pytest.raises(InvalidArgument, match="purple"):
        service.EvaluateModel(automl_pb2.EvaluateModelRequest(name="models/judged", dataset="datasets/strange"), None)
    with pytest.raises(NotFound, match="no dataset"):
        service.EvaluateModel(automl_pb2.EvaluateModelRequest(name="models/judged", dataset="datasets/none"), None)
    lost = automl_pb2.CombinePredictionsRequest(inputs=[{"uri": "a.csv"}, {"uri": "b.csv"}], method=automl_pb2.COMBINATION_METHOD_CONSENSUS)
    with pytest.raises(NotFound, match=r"a\.csv"):
        service.CombinePredictions(lost, None)
