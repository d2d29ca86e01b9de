"""`AugmentImages`: images in, augmented ones out, in their order; an item's error is its answer and ends nothing."""

from __future__ import annotations

from dataclasses import dataclass

import structlog
from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Struct

from oteo_augment.augmentation import check_points_swap, policy_from_proto
from oteo_core.augmentation import Annotations, AugmentationKey, Augmented, Border, Policy, augment, check_policy
from oteo_core.augmentation.swapping import both_ways, swapped_labels
from oteo_core.datasets import Sample
from oteo_core.datasets.named_images import ImageStore
from oteo_core.datasets.proto import annotations_from_proto, annotations_to_proto
from oteo_core.images import ImageLimits, decode, pixel_digest, significant_bits
from oteo_core.images.encoding import PNG, encode_as
from oteo_core.server.item_streams import ItemStream
from oteo_protos.augment.v1 import augment_pb2
from oteo_protos.type.v1 import image_pb2

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


class ImageStream(ItemStream[StreamSettings, augment_pb2.AugmentImagesResponse]):
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
        super().__init__(
            augment_pb2.AugmentImagesRequest,
            # albumentations is loaded there, which takes seconds.
            StreamSettings.of,
            self._augmented,
            lambda key, status: augment_pb2.AugmentImagesResponse(key=key, error=status),
            threads,
        )
        self._images = images
        self._limits = limits

    def _augmented(self, settings: StreamSettings, item: augment_pb2.AugmentImagesRequest.Item) -> list[augment_pb2.AugmentImagesResponse]:
        image = decode(self._images.source(item.image), self._limits)
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
                    image=image_pb2.EncodedImage(content=encode_as(made.pixels, settings.media_type), media_type=settings.media_type),
                    annotations=annotations_to_proto(moved),
                    provenance=_provenance(settings, name, copy, made),
                )
            )
        return answers


def _labels(policy: Policy, labels: tuple[str, ...], made: Augmented) -> tuple[str, ...]:
    return swapped_labels(labels, both_ways(policy.mirror_swaps)) if made.mirrored else labels


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
