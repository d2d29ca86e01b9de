"""`AugmentImages`: images in, augmented ones out, in their order; an item's error is its answer and ends nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import structlog
from google.protobuf.json_format import ParseDict
from google.protobuf.message import DecodeError
from google.protobuf.struct_pb2 import Struct
from numpy.typing import NDArray

from oteo_augment.augmentation import check_points_swap, policy_from_proto
from oteo_core.augmentation import Annotations, AugmentationKey, Augmented, Border, Policy, augment, check_policy
from oteo_core.augmentation.swapping import both_ways, swapped_labels
from oteo_core.datasets import Sample
from oteo_core.datasets.named_images import ImageStore
from oteo_core.datasets.proto import annotations_from_proto, annotations_to_proto
from oteo_core.errors import InvalidArgument, OteoError, from_exception
from oteo_core.images import ImageLimits, decode, encode_jpeg, encode_png, pixel_digest, significant_bits
from oteo_core.server.streams import answered_in_order
from oteo_core.server.validation import validate
from oteo_protos.augment.v1 import augment_pb2
from oteo_protos.type.v1 import image_pb2

PNG, JPEG = "image/png", "image/jpeg"
_JPEG_QUALITY = 95

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class StreamSettings:
    """What the first message asks for.

    Parameters
    ----------
    policy
        What to do to each image.
    seed
        Seed of the draws.
    copies
        Copies of each image.
    media_type
        "image/png" or "image/jpeg".
    bit_depth
        Bits that 16-bit images fill; 0: each image's own.
    """

    policy: Policy
    seed: int = 0
    copies: int = 1
    media_type: str = PNG
    bit_depth: int = 0

    @classmethod
    def of(cls, message: augment_pb2.AugmentImagesRequest.Settings) -> StreamSettings:
        """Read the contract's message.

        Raises
        ------
        InvalidArgument
            As `policy_from_proto`, and BAD_PARAMETER for values that a transform refuses.
        """
        policy = policy_from_proto(message.policy, "classification")
        check_policy(policy)
        return cls(policy, message.seed, message.copies or 1, message.media_type or PNG, message.bit_depth)


class ImageStream:
    """Augments images of streams.

    Parameters
    ----------
    images
        Images that are named and not sent.
    limits
        Largest images.
    threads
        Images that are worked on at a time, by all streams together.
    """

    def __init__(self, images: ImageStore, limits: ImageLimits, threads: int) -> None:
        self._images = images
        self._limits = limits
        self._window = 2 * threads
        self._pool = ThreadPoolExecutor(threads, "augment-images")

    async def answer(self, requests: AsyncIterator[bytes]) -> AsyncIterator[augment_pb2.AugmentImagesResponse]:
        """Answer one stream.

        Raises
        ------
        InvalidArgument
            The settings cannot be followed, so that no image could be answered.
        """
        first = await anext(requests, None)
        if first is None:
            return
        message = _parsed(first)
        if message.WhichOneof("payload") == "settings":
            validate(message)
            # albumentations is loaded here, which takes seconds.
            settings = await asyncio.to_thread(StreamSettings.of, message.settings)
        else:
            settings = await asyncio.to_thread(StreamSettings.of, augment_pb2.AugmentImagesRequest.Settings())
            requests = _chained(first, requests)
        async for response in answered_in_order(requests, partial(self._item, settings), self._window):
            yield response

    async def _item(self, settings: StreamSettings, data: bytes) -> Sequence[augment_pb2.AugmentImagesResponse]:
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._work, settings, data)

    def _work(self, settings: StreamSettings, data: bytes) -> Sequence[augment_pb2.AugmentImagesResponse]:
        key = ""
        try:
            message = _parsed(data)
            key = message.item.key
            validate(message)
            return self._augmented(settings, message)
        except OteoError as error:
            return [augment_pb2.AugmentImagesResponse(key=key, error=error.to_status())]
        except Exception as error:
            log.exception("augmentation_failed", key=key)
            return [augment_pb2.AugmentImagesResponse(key=key, error=from_exception(error).to_status())]

    def _augmented(self, settings: StreamSettings, message: augment_pb2.AugmentImagesRequest) -> list[augment_pb2.AugmentImagesResponse]:
        if message.WhichOneof("payload") != "item":
            raise InvalidArgument("settings come first in a stream, and once", reason="SETTINGS_NOT_FIRST", field="settings")
        item = message.item
        image = decode(self._bytes(item.image), self._limits)
        pixels = image.pixels
        depth = settings.bit_depth or significant_bits(pixels, image.header.bit_depth)
        given = annotations_from_proto(item.annotations)
        names = [point.name for marked in given.keypoints for point in marked.points]
        check_points_swap(settings.policy, names, f"the item {item.key!r}", "item.annotations")
        places = Annotations(given.boxes, given.polygons, given.rle, oriented_boxes=given.oriented_boxes, keypoints=given.keypoints)
        border = Border.CONSTANT if places else Border.REFLECT
        name = item.key or pixel_digest(pixels)
        answers = []
        for copy in range(settings.copies):
            made = augment(pixels, settings.policy, AugmentationKey(name, copy, settings.seed), places, border=border, bit_depth=depth)
            moved = Sample(
                "",
                labels=_labels(settings.policy, given.labels, made),
                boxes=made.annotations.boxes,
                polygons=made.annotations.polygons,
                rle=made.annotations.rle,
                oriented_boxes=made.annotations.oriented_boxes,
                keypoints=made.annotations.keypoints,
            )
            answers.append(
                augment_pb2.AugmentImagesResponse(
                    key=item.key,
                    copy=copy,
                    image=image_pb2.EncodedImage(content=_encoded(made.pixels, settings.media_type), media_type=settings.media_type),
                    annotations=annotations_to_proto(moved),
                    provenance=_provenance(settings, name, copy, made),
                )
            )
        return answers

    def _bytes(self, source: image_pb2.ImageSource) -> bytes:
        if source.sample:
            return self._images.sample(source.sample)
        if source.uri:
            return self._images.object(source.uri)
        return source.content


def _labels(policy: Policy, labels: tuple[str, ...], made: Augmented) -> tuple[str, ...]:
    return swapped_labels(labels, both_ways(policy.mirror_swaps)) if made.mirrored else labels


def _parsed(data: bytes) -> augment_pb2.AugmentImagesRequest:
    try:
        return augment_pb2.AugmentImagesRequest.FromString(data)
    except DecodeError as error:
        raise InvalidArgument(f"this is not an AugmentImagesRequest: {error}", reason="BAD_MESSAGE") from error


async def _chained(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for one in rest:
        yield one


def _encoded(pixels: NDArray[Any], media_type: str) -> bytes:
    channels = pixels.shape[2]
    if media_type == JPEG:
        if pixels.dtype != np.uint8 or channels not in (1, 3):
            raise _not_held(pixels, "a JPEG holds 8 bits of one or three channels: ask for image/png")
        return encode_jpeg(pixels, _JPEG_QUALITY)
    if pixels.dtype not in (np.uint8, np.uint16) or channels not in (1, 3, 4):
        raise _not_held(pixels, "a PNG holds 8 or 16 bits of one, three or four channels: augment such images in a dataset")
    return encode_png(pixels)


def _not_held(pixels: NDArray[Any], why: str) -> InvalidArgument:
    return InvalidArgument(
        f"pixels of {pixels.shape[2]} channels of {pixels.dtype.name}: {why}", reason="PIXELS_NOT_HELD", field="item.image"
    )


def _provenance(settings: StreamSettings, name: str, copy: int, made: Augmented) -> Struct:
    """Give what the copy can be made from again: policy, seed, key and number decide every draw."""
    words = {
        "policy": settings.policy.to_json(),
        "policy_digest": settings.policy.digest,
        "seed": str(settings.seed),
        "key": name,
        "copy": copy,
        "mirrored": made.mirrored,
        "steps": list(made.drawn),
        "dropped": dict(made.lost),
        "dropped_points": dict(made.points_lost),
    }
    return ParseDict(words, Struct())
