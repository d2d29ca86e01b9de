"""`TranslateService`, and what it takes to serve it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NoReturn

import grpc
from google.longrunning import operations_pb2, operations_pb2_grpc
from google.protobuf import empty_pb2

from oteo_core.artifacts import open_store
from oteo_core.errors import NotFound, Unimplemented
from oteo_core.jobs import JobRunner
from oteo_core.operations import OperationManager, OperationStore
from oteo_core.pagination import decode_token
from oteo_protos.translate.v1 import translate_pb2, translate_pb2_grpc
from oteo_translate.settings import TranslateSettings


class TranslateService(translate_pb2_grpc.TranslateServiceServicer):
    """Translation between domains. This release has the contract and the operations; it makes no translator yet, so there are none to be found."""

    def MeasureShift(self, request: translate_pb2.MeasureShiftRequest, context: grpc.ServicerContext) -> NoReturn:
        """Not yet."""
        raise _later("MeasureShift", "until then compare a deployment's accuracy on labelled images of both domains with EvaluateModel")

    def TrainTranslator(self, request: translate_pb2.TrainTranslatorRequest, context: grpc.ServicerContext) -> NoReturn:
        """Not yet."""
        raise _later("TrainTranslator", "until then train on images of both domains together")

    def TranslateDataset(self, request: translate_pb2.TranslateDatasetRequest, context: grpc.ServicerContext) -> NoReturn:
        """Not yet."""
        raise _later("TranslateDataset", "there is no translator that it could use")

    def TranslateImages(
        self, request_iterator: Iterator[translate_pb2.TranslateImagesRequest], context: grpc.ServicerContext
    ) -> Iterator[translate_pb2.TranslateImagesResponse]:
        """Not yet."""
        raise _later("TranslateImages", "there is no translator that it could use")

    def GetTranslator(self, request: translate_pb2.GetTranslatorRequest, context: grpc.ServicerContext) -> translate_pb2.Translator:
        """Give one translator."""
        raise _missing(request.name)

    def ListTranslators(
        self, request: translate_pb2.ListTranslatorsRequest, context: grpc.ServicerContext
    ) -> translate_pb2.ListTranslatorsResponse:
        """Give translators, newest first."""
        decode_token(request, request.page_token)
        return translate_pb2.ListTranslatorsResponse()

    def DeleteTranslator(self, request: translate_pb2.DeleteTranslatorRequest, context: grpc.ServicerContext) -> empty_pb2.Empty:
        """Delete a translator."""
        if request.allow_missing:
            return empty_pb2.Empty()
        raise _missing(request.name)


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
        self.operations = OperationManager(settings, "translate", OperationStore(settings.database_url), open_store(settings), runner)

    def register(self, server: grpc.aio.Server) -> Sequence[str]:
        """Add the servicers and give their full names."""
        translate_pb2_grpc.add_TranslateServiceServicer_to_server(TranslateService(), server)
        operations_pb2_grpc.add_OperationsServicer_to_server(self.operations.servicer(), server)
        return (
            translate_pb2.DESCRIPTOR.services_by_name["TranslateService"].full_name,
            operations_pb2.DESCRIPTOR.services_by_name["Operations"].full_name,
        )

    def start(self) -> None:
        """Start the reconciler of operations."""
        self.operations.start_reconciler()

    def stop(self) -> None:
        """Stop the reconciler and close the database."""
        self.operations.close()


def _later(method: str, meanwhile: str) -> Unimplemented:
    return Unimplemented(
        f"{method} is not available in this release; {meanwhile}", reason="NOT_IN_THIS_RELEASE", metadata={"method": method}
    )


def _missing(name: str) -> NotFound:
    return NotFound(f"there is no translator {name}; this release makes none yet", reason="TRANSLATOR_NOT_FOUND", field="name")
