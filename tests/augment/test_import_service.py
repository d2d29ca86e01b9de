"""DatasetService over a real channel, with jobs as processes: what a caller sees, end to end."""

from __future__ import annotations

import sys
import time
import uuid
import zipfile
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from google.longrunning import operations_pb2, operations_pb2_grpc
from google.rpc import status_pb2
from import_sources import class_folders
from live_server import live_server
from waiting import patient, wait_done, wait_for

from oteo_augment.service import Augment
from oteo_augment.settings import AugmentSettings
from oteo_core.errors import OteoError, from_status
from oteo_core.jobs import ProcessJobRunner
from oteo_core.server import sync_channel
from oteo_protos.augment.v1 import dataset_pb2 as pb
from oteo_protos.augment.v1 import dataset_pb2_grpc
from oteo_protos.type.v1 import report_pb2, task_pb2


class Caller:
    """A client of the service, and what the tests need to look behind it."""

    def __init__(self, augment: Augment, channel: grpc.Channel, settings: AugmentSettings) -> None:
        self.datasets = dataset_pb2_grpc.DatasetServiceStub(channel)
        self.operations = operations_pb2_grpc.OperationsStub(channel)
        self.manager = augment.operations
        self.artifacts = augment.operations.artifacts
        self.settings = settings

    def wait(self, operation: operations_pb2.Operation) -> pb.Dataset:
        request = operations_pb2.GetOperationRequest(name=operation.name)
        operation = wait_done(lambda: self.operations.GetOperation(request), 30)
        if operation.HasField("error"):
            raise from_status(status_pb2.Status.FromString(operation.error.SerializeToString()))
        response = pb.ImportDatasetResponse()
        assert operation.response.Unpack(response)
        metadata = pb.ImportDatasetMetadata()
        assert operation.metadata.Unpack(metadata)
        assert metadata.progress.state == report_pb2.Progress.STATE_SUCCEEDED
        assert metadata.dataset == response.dataset.name
        assert metadata.read_count == metadata.found_count > 0
        return response.dataset


@pytest.fixture(scope="module")
def caller(tmp_path_factory) -> Iterator[Caller]:
    home = tmp_path_factory.mktemp("augment")
    settings = AugmentSettings(home=home, allow_anonymous=True, job_python=sys.executable, reconcile_seconds=0.1, max_upload_bytes=3 << 20)
    runner = ProcessJobRunner(home / "jobs", executor="inline")
    augment = Augment(settings, runner)
    with live_server(settings, augment.register) as server:
        server.run(augment.start()).result(patient(30))
        channel = sync_channel(server.address, settings)
        yield Caller(augment, channel, settings)
        channel.close()
        server.run(augment.stop()).result(patient(30))
    runner.close()


@pytest.fixture(scope="module")
def cells(tmp_path_factory) -> Path:
    root = class_folders(tmp_path_factory.mktemp("source") / "Blood Cells", {"round": 12, "long": 12})
    (root / "long" / "broken.png").write_bytes((root / "long" / "000.png").read_bytes()[:-40])
    (root / "long" / "copy.png").write_bytes((root / "long" / "001.png").read_bytes())
    return root


@pytest.fixture(scope="module")
def imported(caller, cells) -> pb.Dataset:
    return caller.wait(caller.datasets.ImportDataset(pb.ImportDatasetRequest(source_uri=str(cells))))


def refusal(call) -> tuple[grpc.StatusCode, str, str | None]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    trailing = dict(caught.value.trailing_metadata())
    error = from_status(status_pb2.Status.FromString(trailing["grpc-status-details-bin"]))
    return caught.value.code(), error.reason, error.field


def test_import_from_call_to_samples(caller, imported):
    assert imported.name == "datasets/blood-cells"
    assert imported.task == task_pb2.TASK_CLASSIFICATION
    assert [c.name for c in imported.classes] == ["long", "round"]
    assert (imported.sample_count, imported.excluded_count, imported.exact_duplicate_group_count) == (25, 1, 1)
    assert imported.source_format == pb.DATASET_FORMAT_CLASS_FOLDERS
    assert caller.datasets.GetDataset(pb.GetDatasetRequest(name=imported.name)) == imported
    seen, token = [], ""
    while True:
        page = caller.datasets.ListSamples(pb.ListSamplesRequest(parent=imported.name, page_size=7, page_token=token))
        seen += [sample.source_path for sample in page.samples]
        token = page.next_page_token
        if not token:
            break
    assert len(seen) == len(set(seen)) == 25
    assert seen == sorted(seen)


def test_samples_by_finding_class_and_part(caller, imported):
    def listed(**fields):
        return caller.datasets.ListSamples(pb.ListSamplesRequest(parent=imported.name, **fields)).samples

    (broken,) = listed(include_excluded=True, finding_code="TRUNCATED_IMAGE")
    assert broken.excluded
    assert broken.path == ""
    assert broken.findings[0].severity == report_pb2.Finding.SEVERITY_ERROR
    assert listed(finding_code="TRUNCATED_IMAGE") == []
    assert [s.source_path for s in listed(only_findings=True)] == ["long/001.png", "long/copy.png"]
    assert listed(only_findings=True)[0].findings[0].related_samples == [listed(only_findings=True)[1].name]
    assert {s.annotations[0].class_name for s in listed(class_name="round")} == {"round"}
    parts = [listed(split=split, page_size=1000) for split in (1, 2, 3)]
    assert sum(map(len, parts)) == 25
    assert all(parts)


def test_the_same_request_twice_is_one_import(caller, cells):
    request = pb.ImportDatasetRequest(source_uri=str(cells), dataset_id="once", request_id=str(uuid.uuid4()))
    first = caller.datasets.ImportDataset(request)
    assert caller.datasets.ImportDataset(request).name == first.name
    caller.wait(first)
    assert caller.datasets.ImportDataset(request).name == first.name
    request.domain = "another"
    assert refusal(lambda: caller.datasets.ImportDataset(request))[1] == "REQUEST_ID_REUSED"


def test_names_are_not_given_twice(caller, cells, imported):
    request = pb.ImportDatasetRequest(source_uri=str(cells), dataset_id=imported.name.removeprefix("datasets/"))
    assert refusal(lambda: caller.datasets.ImportDataset(request)) == (grpc.StatusCode.ALREADY_EXISTS, "DATASET_EXISTS", "dataset_id")
    other = caller.wait(caller.datasets.ImportDataset(pb.ImportDatasetRequest(source_uri=str(cells))))
    assert other.name == "datasets/blood-cells-2"
    assert (other.digest, other.uid != imported.uid) == (imported.digest, True)


def test_validate_only_leaves_nothing(caller, cells):
    before = caller.datasets.ListDatasets(pb.ListDatasetsRequest(page_size=1000))
    operation = caller.datasets.ImportDataset(pb.ImportDatasetRequest(source_uri=str(cells), validate_only=True, dataset_id="never"))
    metadata = pb.ImportDatasetMetadata()
    assert operation.done
    assert operation.metadata.Unpack(metadata)
    assert (metadata.found_count, metadata.format) == (26, pb.DATASET_FORMAT_CLASS_FOLDERS)
    assert caller.datasets.ListDatasets(pb.ListDatasetsRequest(page_size=1000)) == before
    bad = pb.ImportDatasetRequest(source_uri=str(cells), validate_only=True, task=task_pb2.TASK_DETECTION)
    assert refusal(lambda: caller.datasets.ImportDataset(bad)) == (grpc.StatusCode.INVALID_ARGUMENT, "WRONG_TASK", "task")


def test_bad_requests_are_answered_at_once(caller, cells, tmp_path):
    (tmp_path / "empty").mkdir()
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as file:
        file.writestr("../evil.png", b"")
    one = class_folders(tmp_path / "one", {"only": 3})
    invalid, missing = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND
    table = [
        ({"source_uri": "/nowhere"}, missing, "SOURCE_NOT_FOUND", "source_uri"),
        ({"source_uri": str(tmp_path / "empty")}, invalid, "EMPTY_SOURCE", "source_uri"),
        ({"source_uri": str(tmp_path / "bad.zip")}, invalid, "UNSAFE_ARCHIVE", "source_uri"),
        ({"source_uri": str(one)}, invalid, "SINGLE_CLASS", "source_uri"),
        ({"source_uri": str(cells), "task": task_pb2.TASK_DETECTION}, invalid, "WRONG_TASK", "task"),
        ({"source_uri": str(cells), "format": pb.DATASET_FORMAT_COCO}, invalid, "UNSUPPORTED_FORMAT", "format"),
        ({"source_uri": str(cells), "format": pb.DATASET_FORMAT_DICOM}, invalid, "UNSUPPORTED_FORMAT", "format"),
        ({"source_uri": str(cells), "classes": ["cat", "dog"]}, invalid, "UNKNOWN_CLASS", "classes"),
        ({"source_uri": str(cells), "split": pb.SplitOptions(group_pattern="(")}, invalid, "BAD_GROUP_PATTERN", "split.group_pattern"),
        ({"source_uri": ""}, invalid, None, "source_uri"),
        ({"source_uri": str(cells), "split": pb.SplitOptions(train=0.5)}, invalid, None, None),
    ]
    for fields, code, reason, field in table:
        got = refusal(lambda fields=fields: caller.datasets.ImportDataset(pb.ImportDatasetRequest(**fields)))
        assert got[0] == code, fields
        assert reason in (None, got[1]), fields
        assert field in (None, got[2]), fields
    assert not caller.manager.unfinished()


def test_what_only_the_job_can_see_fails_the_operation(caller, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.png").write_bytes(b"no picture")
    operation = caller.datasets.ImportDataset(pb.ImportDatasetRequest(source_uri=str(tmp_path), dataset_id="unreadable"))
    with pytest.raises(OteoError) as caught:
        caller.wait(operation)
    assert (caught.value.reason, caught.value.field) == ("NO_READABLE_IMAGE", "source_uri")
    assert not caller.artifacts.exists("datasets/unreadable")


def pieces(settings: pb.ImportDatasetRequest, files: dict[str, bytes], chunk: int = 1 << 20) -> Iterator[pb.UploadDatasetRequest]:
    yield pb.UploadDatasetRequest(settings=settings)
    for path, data in files.items():
        yield pb.UploadDatasetRequest(file=pb.UploadDatasetRequest.File(path=path, size=len(data)))
        for start in range(0, len(data), chunk):
            yield pb.UploadDatasetRequest(chunk=data[start : start + chunk])


def test_upload_is_the_same_import_and_cleans_up(caller, cells, imported):
    files = {str(path.relative_to(cells)): path.read_bytes() for path in cells.rglob("*.png")}
    settings = pb.ImportDatasetRequest(display_name="Sent cells", request_id=str(uuid.uuid4()))
    operation = caller.datasets.UploadDataset(pieces(settings, files, chunk=1000))
    made = caller.wait(operation)
    assert (made.name, made.digest) == ("datasets/sent-cells", imported.digest)
    assert caller.artifacts.children("uploads") == []
    assert caller.datasets.UploadDataset(pieces(settings, files)).name == operation.name
    assert caller.artifacts.children("uploads") == []


def test_upload_of_one_archive(caller, cells, imported, tmp_path):
    with zipfile.ZipFile(tmp_path / "cells.zip", "w") as file:
        for path in cells.rglob("*.png"):
            file.write(path, path.relative_to(cells))
    settings = pb.ImportDatasetRequest(dataset_id="zipped")
    made = caller.wait(caller.datasets.UploadDataset(pieces(settings, {"cells.zip": (tmp_path / "cells.zip").read_bytes()})))
    assert made.digest == imported.digest


def test_bad_uploads_leave_nothing(caller):
    settings = pb.UploadDatasetRequest(settings=pb.ImportDatasetRequest(dataset_id="bad-upload"))
    start = pb.UploadDatasetRequest(file=pb.UploadDatasetRequest.File(path="a/1.png", size=10))
    chunk = pb.UploadDatasetRequest(chunk=b"12345")
    evil = pb.UploadDatasetRequest(file=pb.UploadDatasetRequest.File(path="../evil.png", size=1))
    large = pb.UploadDatasetRequest(file=pb.UploadDatasetRequest.File(path="a/big.png", size=5 << 20))
    table = [
        ([], "BAD_UPLOAD"),
        ([start, chunk], "BAD_UPLOAD"),
        ([settings, chunk], "BAD_UPLOAD"),
        ([settings, settings], "BAD_UPLOAD"),
        ([settings], "EMPTY_SOURCE"),
        ([settings, start, chunk], "SIZE_MISMATCH"),
        ([settings, start, chunk, chunk, chunk], "SIZE_MISMATCH"),
        ([settings, evil], "UNSAFE_PATH"),
        ([settings, start, chunk, chunk, start], "DUPLICATE_FILE"),
        ([settings, large, *[pb.UploadDatasetRequest(chunk=bytes(1 << 20))] * 4], "UPLOAD_TOO_LARGE"),
    ]
    for stream, reason in table:
        assert refusal(lambda stream=stream: caller.datasets.UploadDataset(iter(stream)))[1] == reason
    assert caller.artifacts.children("uploads") == []


def test_a_broken_stream_leaves_nothing(caller):
    def broken() -> Iterator[pb.UploadDatasetRequest]:
        yield pb.UploadDatasetRequest(settings=pb.ImportDatasetRequest(dataset_id="broken"))
        for name, size in (("whole", 5), ("half", 10)):
            yield pb.UploadDatasetRequest(file=pb.UploadDatasetRequest.File(path=f"a/{name}.png", size=size))
            yield pb.UploadDatasetRequest(chunk=b"12345")
        time.sleep(30)

    call = caller.datasets.UploadDataset.future(broken())
    wait_for(lambda: caller.artifacts.children("uploads"))
    call.cancel()
    wait_for(lambda: caller.artifacts.children("uploads") == [], 10)
    assert not caller.manager.unfinished()


def test_list_and_delete(caller, cells):
    for name in ("first", "second"):
        caller.wait(caller.datasets.ImportDataset(pb.ImportDatasetRequest(source_uri=str(cells), dataset_id=name)))
    page = caller.datasets.ListDatasets(pb.ListDatasetsRequest(page_size=1))
    assert page.datasets[0].name == "datasets/second"
    page = caller.datasets.ListDatasets(pb.ListDatasetsRequest(page_size=1, page_token=page.next_page_token))
    assert page.datasets[0].name == "datasets/first"
    assert not caller.datasets.ListDatasets(pb.ListDatasetsRequest(task=task_pb2.TASK_DETECTION)).datasets
    request = pb.DeleteDatasetRequest(name="datasets/first", request_id=str(uuid.uuid4()))
    caller.datasets.DeleteDataset(request)
    caller.datasets.DeleteDataset(request)
    gone = grpc.StatusCode.NOT_FOUND, "DATASET_NOT_FOUND"
    assert refusal(lambda: caller.datasets.GetDataset(pb.GetDatasetRequest(name="datasets/first")))[:2] == gone
    assert refusal(lambda: caller.datasets.DeleteDataset(pb.DeleteDatasetRequest(name="datasets/first")))[:2] == gone
    caller.datasets.DeleteDataset(pb.DeleteDatasetRequest(name="datasets/first", allow_missing=True))
    assert not caller.artifacts.exists("datasets/first")


def test_a_dataset_in_use_is_not_deleted(caller, cells):
    caller.wait(caller.datasets.ImportDataset(pb.ImportDatasetRequest(source_uri=str(cells), dataset_id="used")))
    operation = caller.manager.start_external(
        "ImportDataset", pb.ImportDatasetRequest(), metadata=pb.ImportDatasetMetadata(), resource="datasets/used", caller="test"
    )
    code, reason, _ = refusal(lambda: caller.datasets.DeleteDataset(pb.DeleteDatasetRequest(name="datasets/used")))
    assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "DATASET_IN_USE")
    caller.manager.cancelled(operation.name)
    caller.datasets.DeleteDataset(pb.DeleteDatasetRequest(name="datasets/used"))
