"""Annotations move as the pixels do: half a pixel at most between them, nothing lost that is still seen, no number that was not there."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oteo_core.augmentation import CATALOGUE, Annotations, AugmentationKey, Border, Policy, Step, augment
from oteo_core.datasets.annotations import Box, Polygons, Rle
from oteo_core.datasets.runs import mask_from_runs, runs_from_mask
from oteo_core.errors import InvalidArgument

GEOMETRIC = sorted(name for name, spec in CATALOGUE.items() if spec.geometric)
STRONG: dict[str, dict[str, Any]] = {
    "Affine": {"rotate": [-60.0, 60.0], "scale": [0.6, 1.6], "translate_percent": [-0.3, 0.3], "shear": [-20.0, 20.0]},
    "RandomCrop": {"height": 20, "width": 22},
    "CenterCrop": {"height": 20, "width": 22},
    "RandomResizedCrop": {"height": 40, "width": 50},
    "Resize": {"height": 52, "width": 60},
    "LongestMaxSize": {"max_size": 64},
    "SmallestMaxSize": {"max_size": 40},
}


def policy(*names: str, **more: Any) -> Policy:
    return Policy(tuple(Step(name, STRONG.get(name, {})) for name in names), **more)


def blob(seed: int, height: int, width: int) -> np.ndarray:
    """A convex blob of 255 somewhere in the image."""
    rng = np.random.default_rng(seed)
    corners = rng.uniform([0, 0], [width, height], (8, 2)).astype(np.float32)
    mask = np.zeros((height, width), np.uint8)
    cv2.fillConvexPoly(mask, cv2.convexHull(corners.astype(np.int32)), 255)
    return mask


def outline(mask: np.ndarray) -> tuple[float, ...]:
    """The blob's outline, along the edges of its pixels."""
    rows, columns = np.nonzero(mask)
    corners = np.concatenate([np.stack([columns + dx, rows + dy], 1) for dx in (0, 1) for dy in (0, 1)]).astype(np.int32)
    return tuple(float(v) for v in cv2.convexHull(corners).ravel())


def filled(rings: tuple[tuple[float, ...], ...], shape: tuple[int, ...]) -> np.ndarray:
    """Rasterise outlines: a pixel belongs to one if its middle does."""
    from shapely import Polygon, contains_xy, make_valid

    rows, columns = np.mgrid[: shape[0], : shape[1]]
    inside = np.zeros(shape[:2], bool)
    for ring in rings:
        inside |= contains_xy(make_valid(Polygon(np.reshape(ring, (-1, 2)))), columns + 0.5, rows + 0.5)
    return inside


def eroded(mask: np.ndarray, times: int = 1) -> np.ndarray:
    """Take the pixels off that touch another value or the picture's edge."""
    return cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8), iterations=times, borderType=cv2.BORDER_CONSTANT, borderValue=0) > 0


@pytest.mark.parametrize("name", GEOMETRIC)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), copy=st.integers(0, 50), height=st.integers(24, 70), width=st.integers(24, 70))
def test_pixels_mask_outline_runs_and_box_stay_together(name: str, seed: int, copy: int, height: int, width: int) -> None:
    mask = blob(seed, height, width)
    pixels = np.repeat(mask[:, :, None], 3, axis=2)
    ring = outline(mask)
    left, top = np.reshape(ring, (-1, 2)).min(0)
    right, bottom = np.reshape(ring, (-1, 2)).max(0)
    given_ = Annotations(
        boxes=(Box("alone", left, top, right - left, bottom - top), Box("cell", left, top, right - left, bottom - top, instance=3)),
        polygons=(Polygons("cell", (ring,), instance=3),),
        rle=(Rle("runs", height, width, runs_from_mask(mask)),),
        mask=(mask > 0).astype(np.uint8) * 7,
    )
    out = augment(pixels, policy(name, min_visible_share=0.0), AugmentationKey(str(seed), copy), given_, border=Border.CONSTANT)
    found = out.annotations
    assert found.mask is not None
    assert found.mask.shape == out.pixels.shape[:2]
    assert set(np.unique(found.mask)) <= {0, 7}
    # Between two pixels' middles nobody can say where an edge is; an enlarged image shows that uncertainty enlarged.
    blur = (
        1 if out.pixels.shape[:2] == (height, width) else math.ceil(max(np.divide(out.pixels.shape[:2], (height, width)).max(), 1.0) * 1.5)
    )
    edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    seen = out.pixels[:, :, 0] > 127
    if np.median(edge) < 127:
        # Where the surroundings are dark, what is bright is the object; only pixels at its edge may differ.
        assert not (eroded(seen, blur) & (found.mask == 0)).any()
        assert not (eroded(found.mask == 7, blur) & ~seen).any()
    for runs in found.rle:
        np.testing.assert_array_equal(mask_from_runs(runs.counts, runs.height, runs.width) > 0, found.mask == 7)
    for shape in found.polygons:
        drawn = filled(shape.rings, out.pixels.shape)
        assert not (eroded(drawn, blur + 1) & (found.mask == 0)).any()
        assert not (eroded(found.mask == 7, blur + 1) & ~drawn).any()
    for box in found.boxes:
        assert box.x >= 0
        assert box.y >= 0
        assert box.x + box.width <= out.pixels.shape[1] + 1e-6
        assert box.y + box.height <= out.pixels.shape[0] + 1e-6
        rows, columns = np.nonzero(eroded(found.mask == 7, blur))
        if len(rows):
            assert box.x <= columns.min() + 0.5
            assert box.y <= rows.min() + 0.5
            assert box.x + box.width >= columns.max() + 0.5
            assert box.y + box.height >= rows.max() + 0.5
    # Whatever shows more than a speck is still there.
    if np.count_nonzero(eroded(found.mask == 7, blur)) > 4:
        assert {box.class_name for box in found.boxes} == {"alone", "cell"}
        assert len(found.polygons) == len(found.rle) == 1
        assert not out.lost


def test_an_object_that_leaves_is_dropped_and_counted_once() -> None:
    pixels = np.full((40, 40, 1), 90, np.uint8)
    right = Polygons("cell", ((34.0, 10.0, 40.0, 10.0, 40.0, 20.0, 34.0, 20.0),), instance=1)
    middle = Polygons("cell", ((15.0, 15.0, 25.0, 15.0, 25.0, 25.0, 15.0, 25.0),), instance=2)
    given_ = Annotations(boxes=(Box("cell", 34, 10, 6, 10, instance=1), Box("cell", 15, 15, 10, 10, instance=2)), polygons=(right, middle))
    shift = Policy((Step("Affine", {"rotate": [0, 0], "scale": [1, 1], "translate_percent": [0.125, 0.125]}),), min_visible_share=0.5)
    out = augment(pixels, shift, AugmentationKey("a"), given_, border=Border.CONSTANT)
    assert out.lost == {"cell": 1}
    (box,) = out.annotations.boxes
    assert box.instance == 2
    assert (box.x, box.y, box.width, box.height) == pytest.approx((20, 20, 10, 10), abs=0.01)
    # The same move with a smaller share asked for keeps what is left of it, cut at the edge.
    kept = augment(pixels, Policy(shift.steps, min_visible_share=0.05), AugmentationKey("a"), given_, border=Border.CONSTANT)
    assert not kept.lost
    assert max(b.x + b.width for b in kept.annotations.boxes) == pytest.approx(40.0)


def test_shares_multiply_over_steps() -> None:
    pixels = np.zeros((40, 40, 1), np.uint8)
    given_ = Annotations(boxes=(Box("cell", 30, 15, 10, 10),))
    out_and_back = Policy(
        tuple(Step("Affine", {"rotate": [0, 0], "scale": [1, 1], "translate_percent": [s, s]}) for s in (0.125, -0.125)),
        min_visible_share=0.45,
    )
    (box,) = augment(pixels, out_and_back, AugmentationKey("a"), given_, border=Border.CONSTANT).annotations.boxes
    # What was pushed out does not come back with its pixels.
    assert (box.x, box.width) == pytest.approx((30.0, 5.0), abs=0.01)
    strict = augment(pixels, Policy(out_and_back.steps, min_visible_share=0.55), AugmentationKey("a"), given_, border=Border.CONSTANT)
    assert strict.lost == {"cell": 1}


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "int64"])
def test_numbers_of_an_instance_mask_never_grow_and_lost_objects_are_cleared(dtype: str) -> None:
    top = 200 if dtype == "uint8" else 60_000 if dtype == "uint16" else 2_000_000
    mask = np.zeros((48, 48), dtype)
    for index, corner in enumerate(range(0, 48, 8)):
        mask[corner : corner + 6, corner : corner + 6] = top - index
    pixels = np.zeros((48, 48, 1), np.uint8)
    given_ = Annotations(mask=mask, mask_instances=True)
    losses = 0
    for copy in range(20):
        out = augment(pixels, policy("Affine", min_visible_share=0.6), AugmentationKey("m", copy), given_, border=Border.CONSTANT)
        moved = out.annotations.mask
        assert moved is not None
        assert moved.dtype == mask.dtype
        assert set(np.unique(moved)) <= set(np.unique(mask))
        assert len(set(np.unique(moved)) - {0}) + out.lost[""] == 6
        losses += out.lost[""]
    assert losses


def test_annotations_do_not_change_the_draws_and_a_colour_step_moves_nothing() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)
    boxes = Annotations(boxes=(Box("a", 3, 4, 10.5, 7.25),))
    both = policy("Affine", "RandomBrightnessContrast")
    plain = augment(pixels, both, AugmentationKey("x"), border=Border.CONSTANT)
    marked = augment(pixels, both, AugmentationKey("x"), boxes, border=Border.CONSTANT)
    np.testing.assert_array_equal(plain.pixels, marked.pixels)
    assert marked.steps == (0, 1)
    assert augment(pixels, policy("RandomGamma"), AugmentationKey("x"), boxes).annotations == boxes


def test_the_edge_colour_comes_in_beside_objects_and_the_mirrored_image_elsewhere() -> None:
    pixels = np.full((40, 40, 3), (200, 30, 90), np.uint8)
    pixels[14:26, 14:26] = 0
    turn = Policy((Step("Affine", {"rotate": [45, 45], "scale": [1, 1], "translate_percent": [0.2, 0.2]}),))
    constant = augment(pixels, turn, AugmentationKey("x"), border=Border.CONSTANT).pixels
    assert constant[0, 0].tolist() == [200, 30, 90]
    shrunk = Policy((Step("Affine", {"rotate": [0, 0], "scale": [0.4, 0.4], "translate_percent": [0, 0]}),))
    copies = augment(pixels, shrunk, AugmentationKey("x"), border=Border.REFLECT).pixels
    alone = augment(pixels, shrunk, AugmentationKey("x"), border=Border.CONSTANT).pixels
    assert cv2.connectedComponents((alone[:, :, 0] < 100).astype(np.uint8))[0] == 2
    assert cv2.connectedComponents((copies[:, :, 0] < 100).astype(np.uint8))[0] > 2


@pytest.mark.parametrize("name", GEOMETRIC)
def test_an_object_is_there_once_where_the_image_is_mirrored_in(name: str) -> None:
    mask = blob(5, 50, 60)
    given_ = Annotations(boxes=(Box("a", 10, 12, 20, 15),), polygons=(Polygons("b", (outline(mask),)),))
    for copy in range(4):
        mirrored, plain = (
            augment(mask[:, :, None], policy(name), AugmentationKey("x", copy), given_, border=border)
            for border in (Border.REFLECT, Border.CONSTANT)
        )
        assert mirrored.annotations == plain.annotations


def test_a_self_crossing_outline_is_moved_and_cut() -> None:
    pixels = np.zeros((40, 40, 1), np.uint8)
    bow = Polygons("bow", ((5.0, 5.0, 38.0, 30.0, 38.0, 5.0, 5.0, 30.0),))
    for copy in range(15):
        out = augment(pixels, policy("Affine"), AugmentationKey("b", copy), Annotations(polygons=(bow,)), border=Border.CONSTANT)
        for shape in out.annotations.polygons:
            for ring in shape.rings:
                assert len(ring) >= 6
                assert min(ring) >= 0
                assert max(ring) <= 40 + 1e-6
        assert len(out.annotations.polygons) + out.lost.total() == 1


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**32))
def test_runs_there_and_back(height: int, width: int, seed: int) -> None:
    mask = np.random.default_rng(seed).integers(0, 2, (height, width), dtype=np.uint8)
    np.testing.assert_array_equal(mask_from_runs(runs_from_mask(mask), height, width), mask)


def test_runs_that_do_not_add_up_and_a_mask_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match="runs of 5 pixels"):
        mask_from_runs((2, 3), 2, 3)
    with pytest.raises(InvalidArgument) as caught:
        augment(np.zeros((4, 4, 1), np.uint8), policy("D4"), AugmentationKey("x"), Annotations(mask=np.zeros((4, 5), np.uint8)))
    assert caught.value.reason == "MASK_SIZE_MISMATCH"
