"""Datasets: in, looked at, out, augmented."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import grpc
from google.protobuf import empty_pb2

from oteo.connection import call, pages
from oteo.names import enum_name, resource, source_uri
from oteo.operations import OperationHandle
from oteo.upload import upload_requests
from oteo_protos.augment.v1 import augment_pb2, augment_pb2_grpc, dataset_pb2, dataset_pb2_grpc
from oteo_protos.type.v1 import task_pb2


class Datasets:
    """Datasets of the augment service."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel
        self._stub = dataset_pb2_grpc.DatasetServiceStub(channel)
        self._augment = augment_pb2_grpc.AugmentServiceStub(channel)

    def import_(
        self,
        source: str | os.PathLike[str],
        *,
        name: str = "",
        dataset_id: str = "",
        task: str | None = None,
        classes: Iterable[str] = (),
        format: str = "",
        split: dataset_pb2.SplitOptions | None = None,
        domain: str = "",
        validate_only: bool = False,
        request_id: str | None = None,
    ) -> OperationHandle[dataset_pb2.ImportDatasetResponse]:
        """Import a folder, an archive or a URI that the service can read; see ``ImportDatasetRequest``."""
        request = dataset_pb2.ImportDatasetRequest(
            dataset_id=dataset_id,
            display_name=name,
            source_uri=source_uri(source),
            format=enum_name(dataset_pb2.DatasetFormat, "DATASET_FORMAT_", format, "format"),
            task=enum_name(task_pb2.Task, "TASK_", task, "task"),
            classes=list(classes),
            split=split,
            domain=domain,
            validate_only=validate_only,
            request_id=request_id or "",
        )
        return self.start_import(request)

    def start_import(self, request: dataset_pb2.ImportDatasetRequest) -> OperationHandle[dataset_pb2.ImportDatasetResponse]:
        """Import what a request says; it is given a ``request_id`` where it has none."""
        request.request_id = request.request_id or str(uuid.uuid4())
        operation = call(self._stub.ImportDataset, request, timeout=120)
        return OperationHandle(self._channel, operation, dataset_pb2.ImportDatasetResponse)

    def upload(
        self,
        source: str | os.PathLike[str],
        settings: dataset_pb2.ImportDatasetRequest | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> OperationHandle[dataset_pb2.ImportDatasetResponse]:
        """Send a folder's files, or one archive, through the connection and import them; ``on_progress(sent, total)`` in bytes."""
        request = dataset_pb2.ImportDatasetRequest()
        if settings is not None:
            request.CopyFrom(settings)
        request.request_id = request.request_id or str(uuid.uuid4())
        operation = call(self._stub.UploadDataset, upload_requests(Path(source), request, on_progress))
        return OperationHandle(self._channel, operation, dataset_pb2.ImportDatasetResponse)

    def get(self, name: str) -> dataset_pb2.Dataset:
        """Give one dataset."""
        return call(self._stub.GetDataset, dataset_pb2.GetDatasetRequest(name=resource("datasets", name)), timeout=30)

    def list(self, limit: int | None = None) -> Iterator[dataset_pb2.Dataset]:
        """Give datasets, newest first."""
        return pages(self._stub.ListDatasets, dataset_pb2.ListDatasetsRequest(), "datasets", limit)

    def samples(
        self,
        name: str,
        *,
        split: str = "",
        class_name: str = "",
        finding: str = "",
        only_findings: bool = False,
        include_excluded: bool = False,
        limit: int | None = None,
    ) -> Iterator[dataset_pb2.Sample]:
        """Give a dataset's samples with annotations and findings."""
        request = dataset_pb2.ListSamplesRequest(
            parent=resource("datasets", name),
            split=enum_name(task_pb2.Split, "SPLIT_", split, "split"),
            class_name=class_name,
            finding_code=finding,
            only_findings=only_findings,
            include_excluded=include_excluded,
            page_size=min(limit or 500, 500),
        )
        return pages(self._stub.ListSamples, request, "samples", limit)

    def delete(self, name: str, *, allow_missing: bool = False) -> empty_pb2.Empty:
        """Delete a dataset and its files."""
        request = dataset_pb2.DeleteDatasetRequest(
            name=resource("datasets", name), allow_missing=allow_missing, request_id=str(uuid.uuid4())
        )
        return call(self._stub.DeleteDataset, request, timeout=120)

    def augment(
        self,
        name: str,
        *,
        copies: int = 0,
        dataset_id: str = "",
        seed: int = 0,
        drop_originals: bool = False,
        policy: augment_pb2.AugmentationPolicy | None = None,
        copies_by_class: Mapping[str, int] | None = None,
        request_id: str | None = None,
    ) -> OperationHandle[augment_pb2.AugmentDatasetResponse]:
        """Publish a dataset with augmented copies of the training part; of the classes in ``copies_by_class`` so many instead."""
        request = augment_pb2.AugmentDatasetRequest(
            dataset=resource("datasets", name),
            dataset_id=dataset_id,
            copies=copies,
            seed=seed,
            drop_originals=drop_originals,
            policy=policy,
            copies_by_class=copies_by_class or {},
            request_id=request_id or str(uuid.uuid4()),
        )
        operation = call(self._augment.AugmentDataset, request, timeout=60)
        return OperationHandle(self._channel, operation, augment_pb2.AugmentDatasetResponse)

    def balanced_copies(self, name: str, *, most: int = 20) -> dict[str, int]:
        """Give the copies of each class's training samples that bring it near the most frequent class, at most ``most`` of a sample.

        A class with as many samples as the most frequent gets none.
        """
        counts = {
            info.name: sum(part.sample_count for part in info.splits if part.split == task_pb2.SPLIT_TRAIN)
            for info in self.get(name).classes
        }
        largest = max(counts.values(), default=0)
        return {label: min(most, max(0, round(largest / count) - 1)) for label, count in counts.items() if count}

    def audit(
        self,
        name: str,
        *,
        checks: Iterable[str] = (),
        fix: bool = False,
        fixed_dataset_id: str = "",
        request_id: str | None = None,
    ) -> OperationHandle[dataset_pb2.AuditDatasetResponse]:
        """Look for what would spoil a training; with ``fix`` publish a cleaned dataset too, under ``fixed_dataset_id`` if that is given."""
        request = dataset_pb2.AuditDatasetRequest(
            name=resource("datasets", name),
            checks=list(checks),
            fix=fix,
            fixed_dataset_id=fixed_dataset_id,
            request_id=request_id or str(uuid.uuid4()),
        )
        return OperationHandle(self._channel, call(self._stub.AuditDataset, request, timeout=60), dataset_pb2.AuditDatasetResponse)

    def export(
        self,
        name: str,
        *,
        format: str,
        destination: str = "",
        splits: Iterable[str] = (),
        stacks: bool = False,
        request_id: str | None = None,
    ) -> OperationHandle[dataset_pb2.ExportDatasetResponse]:
        """Write a dataset in an outside format (``"coco"``, ``"yolo"``, …) to a folder, an archive or a URI that the service can write.

        With ``stacks`` the frames of a stack or clip go into one TIFF file.
        """
        request = dataset_pb2.ExportDatasetRequest(
            name=resource("datasets", name),
            format=enum_name(dataset_pb2.DatasetFormat, "DATASET_FORMAT_", format, "format"),
            destination_uri=source_uri(destination) if destination else "",
            splits=[enum_name(task_pb2.Split, "SPLIT_", split, "splits") for split in splits],
            stacks=stacks,
            request_id=request_id or str(uuid.uuid4()),
        )
        return OperationHandle(self._channel, call(self._stub.ExportDataset, request, timeout=60), dataset_pb2.ExportDatasetResponse)
