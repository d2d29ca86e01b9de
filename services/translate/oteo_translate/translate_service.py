"""`TranslateService`: decode, check, start jobs, read translators, encode."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import grpc
from google.longrunning import operations_pb2
from google.protobuf import empty_pb2

from oteo_core.artifacts import ArtifactStore
from oteo_core.datasets import dataset_prefix, new_id
from oteo_core.errors import AlreadyExists, NotFound
from oteo_core.images import ImageLimits
from oteo_core.operations import OperationManager
from oteo_core.operations.replays import once
from oteo_core.packages import MANIFEST, model_prefix
from oteo_core.packages.translators import (
    TRANSLATOR_MANIFEST,
    TranslatorPackage,
    check_usable,
    delete_translator,
    list_translators,
    read_translator,
    translator_prefix,
)
from oteo_core.pagination import falling, page_size, paginate
from oteo_protos.translate.v1 import translate_pb2
from oteo_translate.measure_requests import find_model, open_dataset, open_home, refuse_same
from oteo_translate.proto import translator_to_proto
from oteo_translate.settings import TranslateSettings
from oteo_translate.train_requests import check_encoder, check_inception, open_request

if TYPE_CHECKING:
    from oteo_translate.translate_stream import TranslationStream

_MEASURE, _TRAIN, _TRANSLATE = "MeasureShift", "TrainTranslator", "TranslateDataset"


class TranslateService:
    """Shifts and translators over gRPC. Handlers block; the server runs them in threads.

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
        self._stream: TranslationStream | None = None

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

    def TrainTranslator(self, request: translate_pb2.TrainTranslatorRequest, context: grpc.ServicerContext) -> operations_pb2.Operation:
        """Refuse what cannot be tried by the manifests alone, then start the training."""
        if request.request_id and self._operations.find_request(_TRAIN, request.request_id) is not None:
            return self._operations.start(_TRAIN, request, metadata=translate_pb2.TrainTranslatorMetadata(), request_id=request.request_id)
        open_request(self._artifacts, request)
        check_encoder(request, self._settings.encoder_uri)
        check_inception(self._settings.inception_uri)
        target = translator_prefix(self._target(request))
        return self._operations.start(
            _TRAIN,
            request,
            metadata=translate_pb2.TrainTranslatorMetadata(translator=target),
            request_id=request.request_id,
            resource=target,
        )

    def _target(self, request: translate_pb2.TrainTranslatorRequest) -> str:
        """Give the new translator's id. A way that adapts the model publishes a model of that name too, so it must be free as well."""

        def published(name: str) -> bool:
            return self._artifacts.is_file(f"{translator_prefix(name)}/{TRANSLATOR_MANIFEST}") or self._artifacts.is_file(
                f"{model_prefix(name)}/{MANIFEST}"
            )

        if request.translator_id:
            if published(request.translator_id):
                raise AlreadyExists(
                    f"there is a translator or a model {request.translator_id} already: choose another translator_id or delete it",
                    reason="TRANSLATOR_EXISTS",
                    field="translator_id",
                )
            return request.translator_id
        names = (name.removeprefix("datasets/") for name in (request.shifted_dataset, request.home_dataset))
        return new_id(
            request.display_name or " to ".join(names),
            lambda name: published(name) or bool(self._operations.live(translator_prefix(name))),
        )

    def TranslateDataset(self, request: translate_pb2.TranslateDatasetRequest, context: grpc.ServicerContext) -> operations_pb2.Operation:
        """Refuse what cannot be translated, then start."""
        if request.request_id and self._operations.find_request(_TRANSLATE, request.request_id) is not None:
            return self._operations.start(
                _TRANSLATE, request, metadata=translate_pb2.TranslateDatasetMetadata(), request_id=request.request_id
            )
        open_dataset(self._artifacts, request.dataset, "dataset")
        check_usable(self._package(request.translator, "translator"), allow_rejected=request.allow_rejected)

        def published(name: str) -> bool:
            return self._artifacts.is_file(f"{dataset_prefix(name)}/dataset.json")

        if request.dataset_id and published(request.dataset_id):
            raise AlreadyExists(
                f"there is a dataset datasets/{request.dataset_id} already: choose another dataset_id or delete it",
                reason="DATASET_EXISTS",
                field="dataset_id",
            )
        target = dataset_prefix(
            request.dataset_id
            or new_id(
                f"{request.dataset.removeprefix('datasets/')} translated",
                lambda name: published(name) or bool(self._operations.live(dataset_prefix(name))),
            )
        )
        return self._operations.start(
            _TRANSLATE,
            request,
            metadata=translate_pb2.TranslateDatasetMetadata(dataset=target),
            request_id=request.request_id,
            resource=target,
        )

    async def TranslateImages(
        self, request_iterator: AsyncIterator[bytes], context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[translate_pb2.TranslateImagesResponse]:
        """Translate images as they come. Requests come as bytes, so that a bad one is answered and does not end the stream."""
        if self._stream is None:
            self._stream = await asyncio.to_thread(self._open_stream)
        async for response in self._stream.answer(request_iterator):
            yield response

    def _open_stream(self) -> TranslationStream:
        # PyTorch is loaded with the first stream: a service that measures shifts alone does without.
        from oteo_translate.translate_stream import TranslationStream

        limits = ImageLimits(self._settings.max_image_bytes, self._settings.max_image_pixels)
        return TranslationStream(self._artifacts, limits, self._settings.stream_threads)

    def GetTranslator(self, request: translate_pb2.GetTranslatorRequest, context: grpc.ServicerContext) -> translate_pb2.Translator:
        """Give one translator."""
        return translator_to_proto(self._package(request.name, "name"))

    def ListTranslators(
        self, request: translate_pb2.ListTranslatorsRequest, context: grpc.ServicerContext
    ) -> translate_pb2.ListTranslatorsResponse:
        """Give a page of translators, newest first."""
        found = [one for one in list_translators(self._artifacts) if not request.model or one.model == request.model]
        page, token = paginate(
            request,
            found,
            lambda one: falling(f"{one.create_time.isoformat()} {one.id}"),
            token=request.page_token,
            size=page_size(request.page_size),
        )
        return translate_pb2.ListTranslatorsResponse(translators=[translator_to_proto(one) for one in page], next_page_token=token)

    def DeleteTranslator(self, request: translate_pb2.DeleteTranslatorRequest, context: grpc.ServicerContext) -> empty_pb2.Empty:
        """Delete a translator that is not being made. The adapted model that came of it, if one did, is a model of its own and stays."""
        with once(self._artifacts, "DeleteTranslator", request.request_id, request.name) as due:
            if due:
                self._operations.refuse_being_made(request.name, "TRANSLATOR_IN_USE")
                delete_translator(self._artifacts, request.name, allow_missing=request.allow_missing)
        return empty_pb2.Empty()

    def _package(self, name: str, field: str) -> TranslatorPackage:
        try:
            return read_translator(self._artifacts, name)
        except NotFound as error:
            raise NotFound(error.message, reason=error.reason, field=field) from error


SERVICE: str = translate_pb2.DESCRIPTOR.services_by_name["TranslateService"].full_name


def handler(service: TranslateService) -> grpc.GenericRpcHandler:
    """Make the handler of the service; TranslateImages is given bytes."""
    answers: dict[str, Any] = {
        "MeasureShift": operations_pb2.Operation,
        "TrainTranslator": operations_pb2.Operation,
        "TranslateDataset": operations_pb2.Operation,
        "GetTranslator": translate_pb2.Translator,
        "ListTranslators": translate_pb2.ListTranslatorsResponse,
        "DeleteTranslator": empty_pb2.Empty,
    }
    methods = {
        name: grpc.unary_unary_rpc_method_handler(
            getattr(service, name),
            request_deserializer=getattr(translate_pb2, f"{name}Request").FromString,
            response_serializer=message.SerializeToString,
        )
        for name, message in answers.items()
    }
    methods["TranslateImages"] = grpc.stream_stream_rpc_method_handler(
        service.TranslateImages, response_serializer=translate_pb2.TranslateImagesResponse.SerializeToString
    )
    return grpc.method_handlers_generic_handler(SERVICE, methods)
