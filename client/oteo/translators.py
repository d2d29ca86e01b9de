"""Translators: made, listed, put to work on images and datasets."""

from __future__ import annotations

import builtins
import uuid
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import grpc
from google.protobuf import empty_pb2

from oteo.connection import call, pages, stream
from oteo.names import resource
from oteo.operations import OperationHandle
from oteo_protos.translate.v1 import translate_pb2, translate_pb2_grpc
from oteo_protos.type.v1 import image_pb2


class Translators:
    """Translators of the translate service."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel
        self._stub = translate_pb2_grpc.TranslateServiceStub(channel)

    def train(
        self,
        home: str,
        shifted: str,
        model: str,
        *,
        budget: float,
        name: str = "",
        translator_id: str = "",
        methods: Iterable[str] = (),
        parameters: Mapping[str, Mapping[str, Any]] | None = None,
        encoder_uri: str = "",
        label_free: bool = False,
        seed: int = 0,
        request_id: str | None = None,
    ) -> OperationHandle[translate_pb2.TrainTranslatorResponse]:
        """Find what best undoes a shift, and prove on the frozen model that it helps.

        Parameters
        ----------
        home, shifted
            The dataset that the model knows, and the one that images now come from.
        model
            The frozen model that must profit.
        budget
            Wall-clock seconds.
        name, translator_id
            For people; the translator's id, empty: made from the datasets' names.
        methods
            To try, by name; none: all, from cheap to dear.
        parameters
            Of methods, by name, such as ``{"fastcut": {"steps": 500}}``: a method is tried with these in the place of its usual settings.
        encoder_uri
            Where pretrained weights of VGG-16 or VGG-19 lie, as the service sees it, for style transfer; empty: the service's setting, or the model's own
            network.
        label_free
            True: annotations of the shifted dataset are not looked at.
        seed
            Of every draw.
        request_id
            A UUID; the same twice gives the first operation.
        """
        request = translate_pb2.TrainTranslatorRequest(
            translator_id=translator_id,
            display_name=name,
            home_dataset=resource("datasets", home),
            shifted_dataset=resource("datasets", shifted),
            model=resource("models", model),
            methods=list(methods),
            encoder_uri=encoder_uri,
            label_free=label_free,
            seed=seed,
            request_id=request_id or str(uuid.uuid4()),
        )
        for method, given in (parameters or {}).items():
            request.parameters[method].update(given)
        request.budget.FromNanoseconds(int(budget * 1e9))
        operation = call(self._stub.TrainTranslator, request, timeout=120)
        return OperationHandle(self._channel, operation, translate_pb2.TrainTranslatorResponse)

    def apply(
        self, name: str, dataset: str, *, dataset_id: str = "", allow_rejected: bool = False, request_id: str | None = None
    ) -> OperationHandle[translate_pb2.TranslateDatasetResponse]:
        """Translate a whole dataset into a new one; ``allow_rejected`` uses a translator that its gate rejected."""
        request = translate_pb2.TranslateDatasetRequest(
            translator=resource("translators", name),
            dataset=resource("datasets", dataset),
            dataset_id=dataset_id,
            allow_rejected=allow_rejected,
            request_id=request_id or str(uuid.uuid4()),
        )
        operation = call(self._stub.TranslateDataset, request, timeout=120)
        return OperationHandle(self._channel, operation, translate_pb2.TranslateDatasetResponse)

    def apply_to_images(
        self, name: str, images: Iterable[tuple[str, bytes]], *, allow_rejected: bool = False, media_type: str = "image/png"
    ) -> Iterator[translate_pb2.TranslateImagesResponse]:
        """Translate images as they come: keys and encoded bytes in, answers in the same order; an answer may hold an error instead."""

        def messages() -> Iterator[translate_pb2.TranslateImagesRequest]:
            settings = translate_pb2.TranslateImagesRequest.Settings(
                translator=resource("translators", name), allow_rejected=allow_rejected, media_type=media_type
            )
            yield translate_pb2.TranslateImagesRequest(settings=settings)
            for key, content in images:
                item = translate_pb2.TranslateImagesRequest.Item(key=key, image=image_pb2.ImageSource(content=content))
                yield translate_pb2.TranslateImagesRequest(item=item)

        return stream(self._stub.TranslateImages, messages())

    def get(self, name: str) -> translate_pb2.Translator:
        """Give one translator."""
        return call(self._stub.GetTranslator, translate_pb2.GetTranslatorRequest(name=resource("translators", name)), timeout=30)

    def list(self, *, model: str = "", limit: int | None = None) -> Iterator[translate_pb2.Translator]:
        """Give translators, newest first; only those for a model where it is given."""
        request = translate_pb2.ListTranslatorsRequest(model=resource("models", model) if model else "")
        return pages(self._stub.ListTranslators, request, "translators", limit)

    def compare(self, names: builtins.list[str]) -> builtins.list[translate_pb2.Translator]:
        """Give several translators with their evidence."""
        return [self.get(name) for name in names]

    def delete(self, name: str, *, allow_missing: bool = False) -> empty_pb2.Empty:
        """Delete a translator."""
        request = translate_pb2.DeleteTranslatorRequest(
            name=resource("translators", name), allow_missing=allow_missing, request_id=str(uuid.uuid4())
        )
        return call(self._stub.DeleteTranslator, request, timeout=120)
