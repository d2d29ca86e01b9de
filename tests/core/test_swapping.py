"""Mirrors that change a class into another: a left lung, mirrored, is a right one."""

from __future__ import annotations

import numpy as np
import pytest

from oteo_core.augmentation import Annotations, AugmentationKey, Policy, Step, augment
from oteo_core.augmentation.swapping import both_ways, swapped_labels, swapped_numbers
from oteo_core.datasets import Box, Polygons, Rle
from oteo_core.errors import InvalidArgument

LUNGS = {"left lung": "right lung"}
MIRROR, UPSIDE, TURN = Step("HorizontalFlip"), Step("VerticalFlip"), Step("Rotate", {"limit": [180, 180]})
PIXELS = np.arange(40 * 60 * 3, dtype=np.uint8).reshape(40, 60, 3)
FOUND = Annotations(
    boxes=(Box("left lung", 2, 3, 12, 20), Box("heart", 30, 10, 10, 10)),
    polygons=(Polygons("right lung", (((40.0, 5.0), (55.0, 5.0), (55.0, 30.0)),)),),
)


def names(policy: Policy, annotations: Annotations = FOUND) -> list[str]:
    moved = augment(PIXELS, policy, AugmentationKey("s"), annotations).annotations
    return [item.class_name for item in (*moved.boxes, *moved.polygons, *moved.rle)]


@pytest.mark.parametrize("steps", [(MIRROR,), (UPSIDE,), (Step("Transpose"),), (MIRROR, TURN), (MIRROR, UPSIDE, MIRROR)])
def test_a_picture_that_is_turned_over_swaps_its_classes(steps: tuple[Step, ...]) -> None:
    policy = Policy(steps, laterality=True, mirror_swaps=LUNGS)
    result = augment(PIXELS, policy, AugmentationKey("s"), FOUND)
    assert result.mirrored
    assert names(policy) == ["right lung", "heart", "left lung"]
    # Without pairs the classes stay, and the mirror is told all the same.
    plain = Policy(steps)
    assert augment(PIXELS, plain, AugmentationKey("s"), FOUND).mirrored
    assert names(plain) == ["left lung", "heart", "right lung"]


@pytest.mark.parametrize("steps", [(MIRROR, MIRROR), (MIRROR, UPSIDE), (TURN,), (Step("RandomGamma"),), ()])
def test_a_picture_that_is_only_turned_keeps_its_classes(steps: tuple[Step, ...]) -> None:
    policy = Policy(steps, mirror_swaps=LUNGS)
    assert not augment(PIXELS, policy, AugmentationKey("s"), FOUND).mirrored
    assert names(policy) == ["left lung", "heart", "right lung"]


def test_a_square_symmetry_swaps_just_where_it_mirrors() -> None:
    policy = Policy((Step("D4"),), mirror_swaps=LUNGS)
    marked = np.zeros((32, 32, 1), np.uint8)
    marked[2, 10], marked[2, 20], marked[20, 10] = 50, 100, 150
    both = set()
    for copy in range(24):
        result = augment(marked, policy, AugmentationKey("s", copy), Annotations(boxes=(Box("left lung", 4, 4, 20, 20),)))
        corner, along, down = (np.argwhere(result.pixels[:, :, 0] == value)[0] for value in (50, 100, 150))
        (ay, ax), (dy, dx) = along - corner, down - corner
        turned_over = bool(ax * dy - ay * dx < 0)
        assert result.mirrored is turned_over
        assert result.annotations.boxes[0].class_name == ("right lung" if turned_over else "left lung")
        both.add(turned_over)
    assert both == {True, False}


def test_masks_and_run_lengths_swap_too() -> None:
    assert swapped_labels(("heart", "right lung"), both_ways(LUNGS)) == ("heart", "left lung")
    mask = np.array([[0, 1, 1], [2, 3, 1]], np.uint8)
    swapped = swapped_numbers(mask, ("left lung", "right lung", "heart"), (1, 2, 3), both_ways(LUNGS))
    np.testing.assert_array_equal(swapped, [[0, 2, 2], [1, 3, 2]])
    assert swapped.dtype == np.uint8
    left = np.zeros((40, 60), np.uint8)
    left[5:20, 3:20] = 1
    counts = _counts(left)
    assert names(Policy((MIRROR,), mirror_swaps=LUNGS), Annotations(rle=(Rle("left lung", 40, 60, counts),))) == ["right lung"]


def _counts(mask: np.ndarray) -> tuple[int, ...]:
    flat = mask.flatten(order="F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    return tuple(int(n) for n in np.diff([0, *edges, flat.size]))


@pytest.mark.parametrize("pairs", [{"left": "left"}, {"left": "right", "right": "left"}, {"left": "right", "centre": "right"}])
def test_a_class_is_named_once(pairs: dict[str, str]) -> None:
    with pytest.raises(InvalidArgument) as refused:
        Policy((MIRROR,), mirror_swaps=pairs)
    assert (refused.value.reason, refused.value.field) == ("BAD_POLICY", "policy.mirror_swaps")


def test_laterality_without_pairs_forbids_mirrors_and_pairs_change_the_draws_name() -> None:
    with pytest.raises(InvalidArgument) as refused:
        Policy((MIRROR,), laterality=True)
    assert refused.value.reason == "MIRROR_REFUSED"
    assert "mirror_swaps" in refused.value.message
    policy = Policy((MIRROR,), laterality=True, mirror_swaps=LUNGS)
    assert policy.digest != Policy((MIRROR,)).digest
    assert Policy.from_json(policy.to_json()) == policy
    assert Policy.from_json(policy.to_json()).digest == policy.digest
