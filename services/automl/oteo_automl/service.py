"""The service put together: its servicer, its operations, the loop beside."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import grpc
from google.longrunning import operations_pb2, operations_pb2_grpc

from oteo_automl.automl_service import AutoMLService
from oteo_automl.settings import AutoMLSettings
from oteo_core.artifacts import open_store
from oteo_core.jobs import JobRunner
from oteo_core.operations import OperationManager, OperationStore
from oteo_protos.automl.v1 import automl_pb2, automl_pb2_grpc


class AutoML:
    """Everything of one process. Make it, `register` it at a server, `start` it, and `stop` it at the end.

    Parameters
    ----------
    settings
        Where everything is.
    runner
        What starts jobs.
    """

    def __init__(self, settings: AutoMLSettings, runner: JobRunner) -> None:
        artifacts = open_store(settings)
        self.operations = OperationManager(settings, "automl", OperationStore(settings.database_url), artifacts, runner)
        self.models = AutoMLService(settings, self.operations, artifacts)

    def register(self, server: grpc.aio.Server) -> Sequence[str]:
        """Add the servicers to a server and give their full names."""
        automl_pb2_grpc.add_AutoMLServiceServicer_to_server(self.models, server)
        operations_pb2_grpc.add_OperationsServicer_to_server(self.operations.servicer(), server)
        return (
            automl_pb2.DESCRIPTOR.services_by_name["AutoMLService"].full_name,
            operations_pb2.DESCRIPTOR.services_by_name["Operations"].full_name,
        )

    async def start(self) -> None:
        """Take up what was left unfinished."""
        self.operations.start_reconciler()

    async def stop(self) -> None:
        """Stop the loop; jobs go on."""
        await asyncio.to_thread(self.operations.close)
