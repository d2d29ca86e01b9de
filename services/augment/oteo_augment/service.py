"""The service put together: its servicers, its operations, the loops beside."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import grpc
from google.longrunning import operations_pb2, operations_pb2_grpc

from oteo_augment import augment_service
from oteo_augment.augment_service import AugmentService
from oteo_augment.dataset_service import DatasetService
from oteo_augment.settings import AugmentSettings
from oteo_augment.uploads import UploadReceiver
from oteo_core.artifacts import open_store
from oteo_core.images import ImageLimits
from oteo_core.jobs import JobRunner
from oteo_core.operations import OperationManager, OperationStore
from oteo_protos.augment.v1 import dataset_pb2, dataset_pb2_grpc


class Augment:
    """Everything of one process. Make it, `register` it at a server, `start` it, and `stop` it at the end.

    Parameters
    ----------
    settings
        Where everything is.
    runner
        What starts jobs.
    """

    def __init__(self, settings: AugmentSettings, runner: JobRunner) -> None:
        self._artifacts = open_store(settings)
        self._store = OperationStore(settings.database_url)
        self.operations = OperationManager(settings, "augment", self._store, self._artifacts, runner)
        self._uploads = UploadReceiver(self._artifacts, max_bytes=settings.max_upload_bytes, max_files=settings.max_upload_files)
        self.datasets = DatasetService(settings, self.operations, self._artifacts, self._uploads)
        limits = ImageLimits(settings.max_image_bytes, settings.max_image_pixels)
        self.augmentations = AugmentService(self.operations, self._artifacts, limits, settings.stream_threads)

    def register(self, server: grpc.aio.Server) -> Sequence[str]:
        """Add the servicers to a server and give their full names."""
        dataset_pb2_grpc.add_DatasetServiceServicer_to_server(self.datasets, server)
        server.add_generic_rpc_handlers((augment_service.handler(self.augmentations),))
        operations_pb2_grpc.add_OperationsServicer_to_server(self.operations.servicer(), server)
        return (
            dataset_pb2.DESCRIPTOR.services_by_name["DatasetService"].full_name,
            augment_service.SERVICE,
            operations_pb2.DESCRIPTOR.services_by_name["Operations"].full_name,
        )

    async def start(self) -> None:
        """Take up what was left unfinished."""
        self.operations.start_reconciler()
        await asyncio.to_thread(self._sweep_uploads)

    async def stop(self) -> None:
        """Stop the loops; jobs go on."""
        await asyncio.to_thread(self.operations.close)

    def _sweep_uploads(self) -> None:
        """Delete what broken uploads left when the service was killed under them."""
        needed = {prefix for row in self.operations.unfinished() for prefix in row.cleanup}
        self._uploads.sweep(needed)
