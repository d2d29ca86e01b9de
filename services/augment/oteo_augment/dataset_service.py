"""`DatasetService`: decode, call the importer or the store, encode."""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
from google.longrunning import operations_pb2
from google.protobuf import empty_pb2

from oteo_augment.auditing.catalogue import choose as choose_checks
from oteo_augment.conversion import import_limits, import_options
from oteo_augment.exporting import check_export
from oteo_augment.importing import inspect
from oteo_augment.importing.source import check_source
from oteo_augment.settings import AugmentSettings
from oteo_augment.uploads import UploadReceiver
from oteo_core import context as call_context
from oteo_core.artifacts import ArtifactStore
from oteo_core.datasets import DatasetReader, dataset_prefix, delete_dataset, list_datasets, new_id
from oteo_core.datasets.proto import FORMATS, SPLITS, TASKS, dataset_to_proto, name_of, sample_to_proto
from oteo_core.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from oteo_core.exports import parse_destination
from oteo_core.operations import OperationManager
from oteo_core.operations.replays import once
from oteo_core.pagination import decode_token, encode_token, page_size, paginate
from oteo_protos.augment.v1 import augment_pb2, dataset_pb2, dataset_pb2_grpc
from oteo_protos.automl.v1 import automl_pb2

_IMPORT, _UPLOAD, _EXPORT, _AUDIT = "ImportDataset", "UploadDataset", "ExportDataset", "AuditDataset"


class _OutOfTime(Exception):
    """The quick look at a source took too long; the job looks again."""


class DatasetService(dataset_pb2_grpc.DatasetServiceServicer):
    """Datasets over gRPC. Handlers block; the server runs them in threads.

    Parameters
    ----------
    settings
        The service's.
    operations
        The service's operations.
    artifacts
        Where datasets lie.
    uploads
        Takes what callers send.
    """

    def __init__(self, settings: AugmentSettings, operations: OperationManager, artifacts: ArtifactStore, uploads: UploadReceiver) -> None:
        self._settings = settings
        self._operations = operations
        self._artifacts = artifacts
        self._uploads = uploads

    def ImportDataset(self, request: dataset_pb2.ImportDatasetRequest, context: grpc.ServicerContext) -> operations_pb2.Operation:
        """Check what can be checked at once, then start the import."""
        if self._known(_IMPORT, request.request_id):
            return self._start(_IMPORT, request, "")
        target = self._target(request)
        options = import_options(request, target)
        limits = import_limits(self._settings)
        if request.validate_only:
            return self._validated(request, target)
        check_source(request.source_uri, limits.archives)
        stop = time.monotonic() + self._settings.check_seconds

        def in_time() -> None:
            if time.monotonic() > stop:
                raise _OutOfTime

        # A folder is looked into now, so that the commonest mistakes are answered at once; an archive is unpacked by the job.
        if Path(request.source_uri.removeprefix("file://")).expanduser().is_dir():
            try:
                with tempfile.TemporaryDirectory(prefix="oteo-check-") as scratch:
                    inspect(options, Path(scratch), limits, in_time)
            except _OutOfTime:
                pass
        return self._start(_IMPORT, request, target)

    def UploadDataset(
        self, request_iterator: Iterator[dataset_pb2.UploadDatasetRequest], context: grpc.ServicerContext
    ) -> operations_pb2.Operation:
        """Receive the files, then start the import."""
        first = next(request_iterator, None)
        if first is None or first.WhichOneof("payload") != "settings":
            raise InvalidArgument("an upload begins with its settings", reason="BAD_UPLOAD", field="settings")
        request = first.settings
        folder = self._uploads.folder(request.request_id, call_context.current().caller)
        if self._known(_UPLOAD, request.request_id):
            # The files went with the first stream; that the settings are the same is what counts.
            recorded = self._operations.find_request(_UPLOAD, request.request_id)
            assert recorded is not None
            row = self._operations.row(recorded.name)
            request.source_uri = dataset_pb2.ImportDatasetRequest.FromString(row.request).source_uri
            return self._start(_UPLOAD, request, "")
        target = self._target(request)
        request.source_uri = self._artifacts.uri(folder)
        import_options(request, target)
        with self._uploads.receive(folder, request_iterator) as source:
            request.source_uri = source
            check_source(source, import_limits(self._settings).archives)
            if request.validate_only:
                operation = self._validated(request, target)
            else:
                return self._start(_UPLOAD, request, target, folder)
        self._artifacts.delete(folder)
        return operation

    def GetDataset(self, request: dataset_pb2.GetDatasetRequest, context: grpc.ServicerContext) -> dataset_pb2.Dataset:
        """Give one dataset."""
        reader = DatasetReader(self._artifacts, _id(request.name))
        return dataset_to_proto(reader.info, reader.uri)

    def ListDatasets(self, request: dataset_pb2.ListDatasetsRequest, context: grpc.ServicerContext) -> dataset_pb2.ListDatasetsResponse:
        """Give a page of datasets, newest first."""
        wanted = name_of(TASKS, request.task) if request.task else ""
        found = [info for info in list_datasets(self._artifacts) if not wanted or info.task == wanted]
        # The key falls along the list, and tokens ask for keys that rise: each character is turned over.
        page, token = paginate(
            request,
            found,
            lambda info: "".join(chr(0x7F - min(ord(c), 0x7E)) for c in f"{info.create_time} {info.id}"),
            token=request.page_token,
            size=page_size(request.page_size),
        )
        return dataset_pb2.ListDatasetsResponse(
            datasets=[dataset_to_proto(info, self._artifacts.uri(dataset_prefix(info.id))) for info in page], next_page_token=token
        )

    def DeleteDataset(self, request: dataset_pb2.DeleteDatasetRequest, context: grpc.ServicerContext) -> empty_pb2.Empty:
        """Delete a dataset that nobody reads."""
        with once(self._artifacts, "DeleteDataset", request.request_id, request.name) as due:
            if due:
                self._refuse_in_use(request.name)
                try:
                    delete_dataset(self._artifacts, _id(request.name))
                except NotFound:
                    if not request.allow_missing:
                        raise
        return empty_pb2.Empty()

    def ListSamples(self, request: dataset_pb2.ListSamplesRequest, context: grpc.ServicerContext) -> dataset_pb2.ListSamplesResponse:
        """Give a page of samples in the dataset's order; only the rows that are looked at are read."""
        dataset = _id(request.parent)
        try:
            reader = DatasetReader(self._artifacts, dataset)
        except NotFound as exc:
            raise NotFound(exc.message, reason=exc.reason, field="parent") from exc
        size = page_size(request.page_size, default=100)
        position = decode_token(request, request.page_token)
        answer = dataset_pb2.ListSamplesResponse()
        last = ""
        call = call_context.current()
        rows = reader.numbered(
            int(position) + 1 if position else 0,
            split=name_of(SPLITS, request.split) if request.split else None,
            include_excluded=request.include_excluded,
            only_findings=request.only_findings or bool(request.finding_code),
        )
        for row, sample in rows:
            call.check()
            if request.class_name and request.class_name not in sample.class_names():
                continue
            if request.finding_code and not any(finding.code == request.finding_code for finding in sample.findings):
                continue
            if len(answer.samples) == size:
                answer.next_page_token = encode_token(request, last)
                break
            answer.samples.append(sample_to_proto(sample, dataset))
            last = str(row)
        return answer

    def AuditDataset(self, request: dataset_pb2.AuditDatasetRequest, context: grpc.ServicerContext) -> operations_pb2.Operation:
        """Refuse unknown checks and a taken id, then start the audit."""
        fixed = ""
        if self._known(_AUDIT, request.request_id):
            recorded = self._operations.find_request(_AUDIT, request.request_id)
            assert recorded is not None
            # The id that was made for the first call: the same call has the same answer.
            first = dataset_pb2.AuditDatasetRequest.FromString(self._operations.row(recorded.name).request)
            request.fixed_dataset_id = request.fixed_dataset_id or (first.fixed_dataset_id if request.fix else "")
        else:
            choose_checks(request.checks)
            DatasetReader(self._artifacts, _id(request.name))
            if request.fix:
                request.fixed_dataset_id = self._fixed_id(request)
                fixed = dataset_prefix(request.fixed_dataset_id)
        return self._operations.start(
            _AUDIT,
            request,
            metadata=dataset_pb2.AuditDatasetMetadata(dataset=request.name),
            request_id=request.request_id,
            resource=fixed,
        )

    def _fixed_id(self, request: dataset_pb2.AuditDatasetRequest) -> str:
        """Give the cleaned dataset's id.

        Raises
        ------
        AlreadyExists
            DATASET_EXISTS if the caller's choice is taken.
        """

        def taken(dataset: str) -> bool:
            return self._published(dataset) or bool(self._operations.live(dataset_prefix(dataset)))

        if not request.fixed_dataset_id:
            return new_id(f"{_id(request.name)}-cleaned", taken)
        if taken(request.fixed_dataset_id):
            raise AlreadyExists(
                f"there is a dataset datasets/{request.fixed_dataset_id} already, or one is being made: choose another fixed_dataset_id or delete it",
                reason="DATASET_EXISTS",
                field="fixed_dataset_id",
            )
        return request.fixed_dataset_id

    def ExportDataset(self, request: dataset_pb2.ExportDatasetRequest, context: grpc.ServicerContext) -> operations_pb2.Operation:
        """Refuse what cannot be written, then start the export."""
        resource = ""
        if not self._known(_EXPORT, request.request_id):
            splits = [name_of(SPLITS, split) for split in request.splits]
            check_export(DatasetReader(self._artifacts, _id(request.name)).info, name_of(FORMATS, request.format), splits, request.stacks)
            if request.destination_uri:
                destination = parse_destination(request.destination_uri, self._artifacts)
                destination.refuse_if_taken()
                # Two exports to one place at a time: the second is told so at once.
                resource = f"exports/{hashlib.sha256(destination.uri.encode()).hexdigest()[:32]}"
        return self._operations.start(
            _EXPORT,
            request,
            metadata=dataset_pb2.ExportDatasetMetadata(dataset=request.name),
            request_id=request.request_id,
            resource=resource,
        )

    def _known(self, method: str, request_id: str) -> bool:
        return bool(request_id) and self._operations.find_request(method, request_id) is not None

    def _target(self, request: dataset_pb2.ImportDatasetRequest) -> str:
        """Give the new dataset's id.

        Raises
        ------
        AlreadyExists
            DATASET_EXISTS if the caller's choice is taken.
        """
        if request.dataset_id:
            if self._published(request.dataset_id):
                raise AlreadyExists(
                    f"there is a dataset datasets/{request.dataset_id} already: choose another dataset_id or delete it",
                    reason="DATASET_EXISTS",
                    field="dataset_id",
                )
            return request.dataset_id
        name = request.display_name or Path(request.source_uri.rstrip("/")).name.partition(".")[0]
        return new_id(name, lambda taken: self._published(taken) or bool(self._operations.live(dataset_prefix(taken))))

    def _published(self, dataset: str) -> bool:
        return self._artifacts.is_file(f"{dataset_prefix(dataset)}/dataset.json")

    def _start(self, method: str, request: dataset_pb2.ImportDatasetRequest, target: str, upload: str = "") -> operations_pb2.Operation:
        return self._operations.start(
            method,
            request,
            metadata=dataset_pb2.ImportDatasetMetadata(dataset=dataset_prefix(target) if target else "", format=request.format),
            request_id=request.request_id,
            resource=dataset_prefix(target) if target else "",
            on_cleanup=(upload,) if upload else (),
        )

    def _validated(self, request: dataset_pb2.ImportDatasetRequest, target: str) -> operations_pb2.Operation:
        """Give a finished operation that says what an import would find; nothing is written or recorded."""
        with tempfile.TemporaryDirectory(prefix="oteo-check-") as scratch:
            name, _, count = inspect(
                import_options(request, target), Path(scratch), import_limits(self._settings), call_context.current().check
            )
        operation = operations_pb2.Operation(done=True)
        operation.metadata.Pack(dataset_pb2.ImportDatasetMetadata(dataset=dataset_prefix(target), found_count=count, format=FORMATS[name]))
        operation.response.Pack(dataset_pb2.ImportDatasetResponse())
        return operation

    def _refuse_in_use(self, name: str) -> None:
        """Refuse while an operation makes or reads the dataset; those of automl are seen where the services share a database."""
        users = [row.id for row in self._operations.live(name)]
        for row in self._operations.unfinished():
            if row.method == "AugmentDataset" and augment_pb2.AugmentDatasetRequest.FromString(row.request).dataset == name:
                users.append(row.id)
            if row.method == _AUDIT and dataset_pb2.AuditDatasetRequest.FromString(row.request).name == name:
                users.append(row.id)
            if row.method == _EXPORT and dataset_pb2.ExportDatasetRequest.FromString(row.request).name == name:
                users.append(row.id)
        for row in self._operations.store.unfinished("automl"):
            if row.method == "TrainModel" and automl_pb2.TrainModelRequest.FromString(row.request).dataset == name:
                users.append(row.id)
        if users:
            raise FailedPrecondition(
                f"{name} is in use by operations/{users[0]}: wait for it or cancel it, then delete",
                reason="DATASET_IN_USE",
                metadata={"operation": f"operations/{users[0]}"},
            )


def _id(name: str) -> str:
    return name.removeprefix("datasets/")
