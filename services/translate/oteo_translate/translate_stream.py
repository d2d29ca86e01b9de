"""`TranslateImages`: images in, translated ones out, in their order; an item's error is its answer and ends nothing."""

from __future__ import annotations

from dataclasses import dataclass

from oteo_core.artifacts import ArtifactStore
from oteo_core.datasets.named_images import ImageStore
from oteo_core.errors import NotFound
from oteo_core.images import ImageLimits, decode
from oteo_core.images.encoding import PNG, encode_as
from oteo_core.server.item_streams import ItemStream
from oteo_protos.translate.v1 import translate_pb2
from oteo_protos.type.v1 import image_pb2
from oteo_translate.translating.translator import Translator, open_translator


@dataclass(frozen=True)
class StreamSettings:
    """What the first message asks for: a translator, and the media type of answers."""

    translator: Translator
    media_type: str


class TranslationStream(ItemStream[StreamSettings, translate_pb2.TranslateImagesResponse]):
    """Translates images of streams.

    Parameters
    ----------
    artifacts
        Where translators and named images lie.
    limits
        Largest images.
    threads
        Images that are worked on at a time, by all streams together.
    """

    def __init__(self, artifacts: ArtifactStore, limits: ImageLimits, threads: int) -> None:
        super().__init__(
            translate_pb2.TranslateImagesRequest,
            self._settings,
            self._translated,
            lambda key, status: translate_pb2.TranslateImagesResponse(key=key, error=status),
            threads,
            needs_settings=True,
        )
        self._artifacts = artifacts
        self._images = ImageStore(artifacts, limits.max_bytes)
        self._limits = limits

    def _settings(self, message: translate_pb2.TranslateImagesRequest.Settings) -> StreamSettings:
        try:
            translator = open_translator(self._artifacts, message.translator, allow_rejected=message.allow_rejected)
        except NotFound as error:
            raise NotFound(error.message, reason=error.reason, field="settings.translator") from error
        return StreamSettings(translator, message.media_type or PNG)

    def _translated(
        self, settings: StreamSettings, item: translate_pb2.TranslateImagesRequest.Item
    ) -> list[translate_pb2.TranslateImagesResponse]:
        image = decode(self._images.source(item.image), self._limits)
        found = settings.translator.apply(image.pixels, image.header.bit_depth)
        content = encode_as(found, settings.media_type)
        return [
            translate_pb2.TranslateImagesResponse(
                key=item.key, image=image_pb2.EncodedImage(content=content, media_type=settings.media_type)
            )
        ]
