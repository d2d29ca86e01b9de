"""Another background behind the objects, whose own pixels stay."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from oteo_augment.augmentation.requests import policy_from_proto
from oteo_core.augmentation import Annotations, AugmentationKey, Policy, Step, augment
from oteo_core.datasets import Box, Polygons, Rle
from oteo_core.datasets.runs import runs_from_mask
from oteo_core.errors import InvalidArgument
from oteo_core.sampledata import draw_cell
from oteo_protos.augment.v1 import augment_pb2

KINDS = ("even", "texture", "smeared")


def scene(dtype: str = "uint8", channels: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """An image and the pixels of its object."""
    grey = draw_cell(2, size=64)[0][:, :, :1]
    image = np.concatenate([np.roll(grey, 3 * c, axis=0) for c in range(channels)], axis=2)
    image = image.astype(np.uint16) * 257 if dtype == "uint16" else image.astype(np.float32) / 255 if dtype == "float32" else image
    objects = np.zeros((64, 64), np.uint8)
    cv2.circle(objects, (34, 28), 14, 1, -1)
    return image, objects


def replaced(image: np.ndarray, annotations: Annotations, kind: str = "any", copy: int = 0) -> np.ndarray:
    return augment(image, Policy((Step("BackgroundReplacement", {"kind": kind}),)), AugmentationKey("s", copy), annotations).pixels


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("dtype", "channels"), [("uint8", 3), ("uint8", 1), ("uint16", 1), ("float32", 3), ("uint16", 6)])
def test_objects_stay_and_all_else_is_new(kind, dtype, channels):
    image, objects = scene(dtype, channels)
    for given in (
        Annotations(mask=objects),
        Annotations(mask=objects.astype(np.uint16) * 700, mask_instances=True),
        Annotations(rle=(Rle("a", 64, 64, runs_from_mask(objects)),)),
    ):
        made = replaced(image, given, kind)
        assert (made.dtype, made.shape) == (image.dtype, image.shape)
        np.testing.assert_array_equal(made[objects == 1], image[objects == 1])
        assert (made[objects == 0] != image[objects == 0]).any(axis=1).mean() > 0.8
    assert len({replaced(image, Annotations(mask=objects), kind, copy).tobytes() for copy in range(4)}) >= 3
    outside = made[objects == 0].astype(float)
    assert bool(outside.std(axis=0).max() == 0) == (kind == "even")


def test_the_light_of_objects_does_not_leak_into_a_smeared_background():
    image, objects = np.full((64, 64, 1), 100, np.uint8), scene()[1]
    image[objects == 1] = 255
    made = augment(
        image,
        Policy((Step("BackgroundReplacement", {"kind": "smeared", "shift": [0, 0]}),)),
        AugmentationKey("s"),
        Annotations(mask=objects),
    ).pixels
    np.testing.assert_array_equal(made, image)


def test_outlines_and_boxes_say_what_is_kept():
    image, _ = scene()
    ring = (20.0, 14.0, 48.0, 14.0, 48.0, 42.0, 20.0, 42.0)
    square = np.zeros((64, 64), bool)
    square[14:42, 20:48] = True
    for given in (
        Annotations(boxes=(Box("a", 20, 14, 28, 28),)),
        # The outline says more than the box of the same object.
        Annotations(boxes=(Box("a", 0, 0, 64, 64, instance=1),), polygons=(Polygons("a", (ring,), instance=1),)),
    ):
        made = replaced(image, given, "even")
        np.testing.assert_array_equal(made[square], image[square])
        assert (made[~square] != image[~square]).mean() > 0.8


def test_after_a_move_the_objects_are_where_they_are_now():
    image, objects = scene()
    policy = Policy((Step("HorizontalFlip"), Step("BackgroundReplacement", {"kind": "even"})))
    made = augment(image, policy, AugmentationKey("s"), Annotations(mask=objects))
    there = objects[:, ::-1] == 1
    np.testing.assert_array_equal(made.pixels[there], image[:, ::-1][there])
    np.testing.assert_array_equal(made.annotations.mask, objects[:, ::-1])


def test_without_objects_it_is_not_taken_and_for_whole_images_it_is_refused():
    image, _ = scene()
    made = augment(image, Policy((Step("BackgroundReplacement"),)), AugmentationKey("s"), Annotations(mask=np.zeros((64, 64), np.uint8)))
    assert made.steps == ()
    np.testing.assert_array_equal(made.pixels, image)
    message = augment_pb2.AugmentationPolicy(steps=[augment_pb2.TransformStep(transform="replace_background")])
    with pytest.raises(InvalidArgument) as refused:
        policy_from_proto(message, "classification")
    assert (refused.value.reason, refused.value.field) == ("TASK_NOT_SUPPORTED", "policy.steps[0].transform")
    assert policy_from_proto(message, "detection").steps[0].transform == "replace_background"


def test_a_grey_picture_in_three_channels_stays_grey():
    image, objects = scene(channels=1)
    for kind in KINDS:
        made = replaced(np.repeat(image, 3, axis=2), Annotations(mask=objects), kind)
        np.testing.assert_array_equal(made[:, :, 0], made[:, :, 2])
