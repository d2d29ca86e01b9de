"""AugmentDataset from the call to the published dataset."""

from __future__ import annotations

import threading
import time
import uuid
from pathlib import Path

import pytest
from google.rpc import code_pb2
from waiting import patient, wait_done

from oteo_augment.augment_job import HANDLERS
from oteo_augment.augment_service import AugmentService
from oteo_augment.augmentation import dataset
from oteo_core.artifacts import ArtifactStore, open_store
from oteo_core.datasets import DatasetInfo, DatasetReader, DatasetWriter, Sample, sharding
from oteo_core.errors import AlreadyExists, InvalidArgument, NotFound
from oteo_core.images import ImageLimits, encode_png, pixel_digest
from oteo_core.jobs import JobRunner, JobState
from oteo_core.jobs.entry import execute
from oteo_core.operations import OperationManager, OperationStore
from oteo_core.sampledata import draw_cell
from oteo_core.settings import CoreSettings
from oteo_protos.augment.v1 import augment_pb2


class ThreadRunner(JobRunner):
    """Runs jobs in threads of the test."""

    def __init__(self, settings: CoreSettings, artifacts: ArtifactStore) -> None:
        self.settings, self.artifacts = settings, artifacts
        self.states: dict[tuple[str, int], JobState] = {}

    def submit(self, operation_id, attempt, entrypoint, env, resources=None):
        key = (operation_id, attempt)
        if key in self.states:
            return
        self.states[key] = JobState.RUNNING

        def work() -> None:
            status = execute(operation_id, attempt, self.settings, self.artifacts, HANDLERS, signals=False)
            self.states[key] = JobState.FAILED if status else JobState.SUCCEEDED

        threading.Thread(target=work, daemon=True).start()

    def nodes(self):
        return []

    def status(self, operation_id, attempt):
        return self.states.get((operation_id, attempt), JobState.UNKNOWN)

    def stop(self, operation_id, attempt):
        """The job's own watch sees the cancellation."""

    def logs(self, operation_id, attempt):
        return ""


@pytest.fixture
def settings(tmp_path: Path, monkeypatch) -> CoreSettings:
    monkeypatch.setenv("OTEO_EXECUTOR", "inline")
    return CoreSettings(home=tmp_path, reconcile_seconds=0.05, allow_anonymous=True)


@pytest.fixture
def artifacts(settings) -> ArtifactStore:
    store = open_store(settings)
    info = DatasetInfo("cells", display_name="Cells", task="classification", classes=("lymphocyte", "monocyte", "neutrophil"))
    with DatasetWriter(store, "datasets/cells", info) as writer:
        for index in range(12):
            pixels, label, stem = draw_cell(index, size=48)
            path = writer.add_media(f"{stem}.png", encode_png(pixels))
            split = "test" if index >= 9 else "train"
            sample = Sample(
                id=stem, path=path, pixel_digest=pixel_digest(pixels), width=48, height=48, channels=3, split=split, labels=(label,)
            )
            writer.add(sample)
        writer.finish()
    return store


@pytest.fixture
def manager(settings, artifacts):
    rows = OperationStore(settings.database_url)
    manager = OperationManager(settings, "augment", rows, artifacts, ThreadRunner(settings, artifacts))
    manager.start_reconciler()
    yield manager
    manager.close()
    rows.close()


@pytest.fixture
def service(manager, artifacts) -> AugmentService:
    return AugmentService(manager, artifacts, ImageLimits(), threads=1)


def ask(service, **fields):
    fields.setdefault("dataset", "datasets/cells")
    return service.AugmentDataset(augment_pb2.AugmentDatasetRequest(**fields), None)


def finished(manager, operation):
    return wait_done(lambda: manager.get(operation.name), 30)


def test_from_the_call_to_the_dataset(service, manager, artifacts):
    request_id = str(uuid.uuid4())
    first = ask(service, copies=2, request_id=request_id)
    metadata = augment_pb2.AugmentDatasetMetadata()
    assert first.metadata.Unpack(metadata)
    assert (metadata.source_dataset, metadata.dataset, metadata.total_count) == ("datasets/cells", "datasets/cells-augmented", 12)
    done = finished(manager, first)
    response = augment_pb2.AugmentDatasetResponse()
    assert done.response.Unpack(response), done.error
    assert response.dataset.name == "datasets/cells-augmented"
    assert response.augmented_count == 18
    assert response.dataset.sample_count == 12 + 18
    assert response.dataset.display_name == "Cells, augmented"
    assert done.metadata.Unpack(metadata)
    assert metadata.written_count == 12
    info = DatasetReader(artifacts, "cells-augmented").info
    assert info.provenance["operation"] == first.name
    assert info.provenance["augmentation"]["copies"] == 2
    assert not list(artifacts.iter(f"{first.name}/staging"))
    # The same request_id gives the same operation, also after its dataset is there; another request under it is refused.
    assert ask(service, copies=2, request_id=request_id).name == first.name
    with pytest.raises(AlreadyExists) as reused:
        ask(service, copies=3, request_id=request_id)
    assert reused.value.reason == "REQUEST_ID_REUSED"
    second = ask(service)
    assert second.metadata.Unpack(metadata)
    assert metadata.dataset == "datasets/cells-augmented-2"
    finished(manager, second)


def test_cancelled_it_leaves_nothing(service, manager, artifacts, monkeypatch):
    monkeypatch.setattr(sharding, "SHARD_WORK", 1)
    real = dataset.augment_shard

    def slow(job, samples):
        time.sleep(0.3)
        return real(job, samples)

    monkeypatch.setattr(dataset, "augment_shard", slow)
    operation = ask(service, copies=3)
    time.sleep(0.7)
    began = time.monotonic()
    manager.cancel(operation.name)
    done = finished(manager, operation)
    assert time.monotonic() - began < patient(5)
    assert done.error.code == code_pb2.CANCELLED
    assert artifacts.children("datasets") == ["cells"]


def test_a_value_that_a_transform_refuses_fails_the_operation(service, manager, artifacts):
    operation = ask(service, policy={"steps": [{"transform": "GaussianBlur", "parameters": {"sigma_limit": "soft"}}]})
    done = finished(manager, operation)
    assert done.error.code == code_pb2.INVALID_ARGUMENT
    assert "GaussianBlur" in done.error.message
    assert artifacts.children("datasets") == ["cells"]


@pytest.mark.parametrize(
    ("fields", "error", "reason", "field"),
    [
        ({"dataset": "datasets/none"}, NotFound, "DATASET_NOT_FOUND", "dataset"),
        ({"dataset_id": "cells"}, AlreadyExists, "DATASET_EXISTS", "dataset_id"),
        ({"copies_by_class": {"basophil": 2}}, InvalidArgument, "UNKNOWN_CLASS", "copies_by_class['basophil']"),
    ],
)
def test_refused_at_once(service, fields, error, reason, field):
    with pytest.raises(error) as caught:
        ask(service, **fields)
    assert (caught.value.reason, caught.value.field) == (reason, field)
