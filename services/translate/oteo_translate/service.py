"""The service put together: its servicer, its operations, the loop beside."""

from __future__ import annotations

from collections.abc import Sequence

import grpc
from google.longrunning import operations_pb2, operations_pb2_grpc

from oteo_core.artifacts import open_store
from oteo_core.jobs import JobRunner, Wanted
from oteo_core.operations import OperationManager, OperationStore
from oteo_translate import translate_service
from oteo_translate.settings import TranslateSettings
from oteo_translate.translate_service import TranslateService


class Translate:
    """Everything of one translate process: `register` it at a server, `start` its reconciler, `stop` it at the end.

    Parameters
    ----------
    settings
        Where everything is.
    runner
        What starts jobs; None: operations are served, none are started.
    """

    def __init__(self, settings: TranslateSettings, runner: JobRunner | None) -> None:
        artifacts = open_store(settings)
        # A training climbs in its job's own process, so that takes what it works with; the other methods' processes take nothing.
        wanted = {"TrainTranslator": Wanted(cpus=1.0, gpus=settings.translate_train_gpus)}
        store = OperationStore(settings.database_url)
        self.operations = OperationManager(settings, "translate", store, artifacts, runner, wanted=wanted)
        self.translators = TranslateService(settings, self.operations, artifacts)

    def register(self, server: grpc.aio.Server) -> Sequence[str]:
        """Add the servicers and give their full names."""
        server.add_generic_rpc_handlers((translate_service.handler(self.translators),))
        operations_pb2_grpc.add_OperationsServicer_to_server(self.operations.servicer(), server)
        return (
            translate_service.SERVICE,
            operations_pb2.DESCRIPTOR.services_by_name["Operations"].full_name,
        )

    def start(self) -> None:
        """Start the reconciler of operations."""
        self.operations.start_reconciler()

    def stop(self) -> None:
        """Stop the reconciler and close the database."""
        self.operations.close()
