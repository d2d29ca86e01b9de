"""ExportDataset over a real channel, with jobs as processes: what a caller sees, end to end."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from google.longrunning import operations_pb2, operations_pb2_grpc
from import_sources import class_folders
from live_server import live_server
from waiting import patient, wait_done

from oteo_augment.importing import Hooks, ImportOptions, Limits, import_dataset
from oteo_augment.service import Augment
from oteo_augment.settings import AugmentSettings
from oteo_core.errors import OteoError, from_status
from oteo_core.jobs import ProcessJobRunner
from oteo_core.server import sync_channel
from oteo_protos.augment.v1 import dataset_pb2 as pb
from oteo_protos.augment.v1 import dataset_pb2_grpc


class Caller:
    """A client of the service."""

    def __init__(self, augment: Augment, channel: grpc.Channel) -> None:
        self.datasets = dataset_pb2_grpc.DatasetServiceStub(channel)
        self.operations = operations_pb2_grpc.OperationsStub(channel)
        self.manager = augment.operations

    def refusal(self, **fields) -> tuple[grpc.StatusCode, str, str | None]:
        with pytest.raises(grpc.RpcError) as refused:
            self.datasets.ExportDataset(pb.ExportDatasetRequest(name="datasets/cells", **fields))
        trailing = dict(refused.value.trailing_metadata())
        error = _error(trailing["grpc-status-details-bin"])
        return refused.value.code(), error.reason, error.field


def _error(data: bytes) -> OteoError:
    from google.rpc import status_pb2

    return from_status(status_pb2.Status.FromString(data))


@pytest.fixture(scope="module")
def caller(tmp_path_factory) -> Iterator[Caller]:
    home = tmp_path_factory.mktemp("augment")
    settings = AugmentSettings(home=home, allow_anonymous=True, job_python=sys.executable, reconcile_seconds=0.1)
    runner = ProcessJobRunner(home / "jobs", executor="inline")
    augment = Augment(settings, runner)
    source = class_folders(home / "cells", {"round": 5, "long": 5})
    import_dataset(ImportOptions("cells", str(source)), augment.operations.artifacts, "datasets/cells", limits=Limits(), hooks=Hooks())
    with live_server(settings, augment.register) as server:
        server.run(augment.start()).result(patient(30))
        channel = sync_channel(server.address, settings)
        yield Caller(augment, channel)
        channel.close()
        server.run(augment.stop()).result(patient(30))
    runner.close()


def test_an_export_runs_as_a_job_and_a_replay_gives_the_same(caller, tmp_path):
    request = pb.ExportDatasetRequest(
        name="datasets/cells", format=pb.DATASET_FORMAT_CLASS_FOLDERS, destination_uri=str(tmp_path / "out"), request_id=str(uuid.uuid4())
    )
    operation = caller.datasets.ExportDataset(request)
    # The place is taken by now, or will be: asking again with the same request_id is still no error.
    assert caller.datasets.ExportDataset(request).name == operation.name
    asked = operations_pb2.GetOperationRequest(name=operation.name)
    operation = wait_done(lambda: caller.operations.GetOperation(asked), 60)
    response, metadata = pb.ExportDatasetResponse(), pb.ExportDatasetMetadata()
    assert operation.response.Unpack(response), operation.error
    assert operation.metadata.Unpack(metadata)
    assert (response.uri, response.sample_count, len(response.losses)) == (str(tmp_path / "out"), 10, 0)
    assert (metadata.dataset, metadata.written_count, metadata.progress.fraction) == ("datasets/cells", 10, 1.0)
    assert len(list(Path(response.uri).rglob("*.png"))) == 10
    assert caller.datasets.ExportDataset(request).done
    assert caller.refusal(format=pb.DATASET_FORMAT_CSV, destination_uri=response.uri) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "DESTINATION_NOT_EMPTY",
        "destination_uri",
    )


@pytest.mark.parametrize(
    ("fields", "code", "reason", "field"),
    [
        ({"format": pb.DATASET_FORMAT_COCO}, grpc.StatusCode.FAILED_PRECONDITION, "FORMAT_CANNOT_HOLD_TASK", "format"),
        ({"format": pb.DATASET_FORMAT_DICOM}, grpc.StatusCode.INVALID_ARGUMENT, "UNSUPPORTED_FORMAT", "format"),
        (
            {"format": pb.DATASET_FORMAT_CSV, "destination_uri": "here"},
            grpc.StatusCode.INVALID_ARGUMENT,
            "BAD_DESTINATION_URI",
            "destination_uri",
        ),
    ],
)
def test_what_cannot_be_done_is_refused_at_once(fields, code, reason, field, caller):
    assert caller.refusal(**fields) == (code, reason, field)


def test_a_dataset_that_is_not_there_is_said(caller):
    with pytest.raises(grpc.RpcError) as refused:
        caller.datasets.ExportDataset(pb.ExportDatasetRequest(name="datasets/nothing", format=pb.DATASET_FORMAT_CSV))
    assert refused.value.code() == grpc.StatusCode.NOT_FOUND


def test_a_dataset_that_is_being_exported_is_not_deleted(caller):
    operation = caller.manager.start_external(
        "ExportDataset",
        pb.ExportDatasetRequest(name="datasets/cells", format=pb.DATASET_FORMAT_CSV),
        metadata=pb.ExportDatasetMetadata(),
        resource="exports/test",
        caller="test",
    )
    with pytest.raises(grpc.RpcError) as refused:
        caller.datasets.DeleteDataset(pb.DeleteDatasetRequest(name="datasets/cells"))
    assert _error(dict(refused.value.trailing_metadata())["grpc-status-details-bin"]).reason == "DATASET_IN_USE"
    caller.manager.cancelled(operation.name)
