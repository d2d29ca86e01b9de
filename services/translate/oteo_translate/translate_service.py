"""`TranslateService`: decode, check, start jobs, read translators, encode."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NoReturn

import grpc
from google.longrunning import operations_pb2
from google.protobuf import empty_pb2

from oteo_core.artifacts import ArtifactStore
from oteo_core.errors import NotFound, Unimplemented
from oteo_core.operations import OperationManager
from oteo_core.pagination import decode_token
from oteo_protos.translate.v1 import translate_pb2, translate_pb2_grpc
from oteo_translate.measure_requests import find_model, open_dataset, open_home, refuse_same
from oteo_translate.settings import TranslateSettings

_MEASURE = "MeasureShift"


class TranslateService(translate_pb2_grpc.TranslateServiceServicer):
    """Shifts and translators over gRPC. Handlers block; the server runs them in threads.

    It makes no translator yet, so there are none to be found.

    Parameters
    ----------
    settings
        The service's.
    operations
        The service's operations.
    artifacts
        Where datasets and models lie.
    """

    def __init__(self, settings: TranslateSettings, operations: OperationManager, artifacts: ArtifactStore) -> None:
        self._settings = settings
        self._operations = operations
        self._artifacts = artifacts

    def MeasureShift(self, request: translate_pb2.MeasureShiftRequest, context: grpc.ServicerContext) -> operations_pb2.Operation:
        """Refuse what cannot be compared by the manifests alone, then start measuring."""
        if not (request.request_id and self._operations.find_request(_MEASURE, request.request_id) is not None):
            package = find_model(self._artifacts, request.model) if request.model else None
            shifted = open_dataset(self._artifacts, request.dataset, "dataset")
            home = open_home(self._artifacts, request, package)
            refuse_same(home, shifted, package.name if package is not None else "")
        return self._operations.start(
            _MEASURE,
            request,
            metadata=translate_pb2.MeasureShiftMetadata(dataset=request.dataset),
            request_id=request.request_id,
        )

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


def _later(method: str, meanwhile: str) -> Unimplemented:
    return Unimplemented(
        f"{method} is not available in this release; {meanwhile}", reason="NOT_IN_THIS_RELEASE", metadata={"method": method}
    )


def _missing(name: str) -> NotFound:
    return NotFound(f"there is no translator {name}; this release makes none yet", reason="TRANSLATOR_NOT_FOUND", field="name")
