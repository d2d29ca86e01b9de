"""Turned boxes and key points move as the pixels under them do."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oteo_core.augmentation import CATALOGUE, Annotations, AugmentationKey, Border, Policy, Step, augment
from oteo_core.datasets.annotations import Box, Keypoint, Keypoints, OrientedBox, Polygons
from oteo_core.datasets.turned import around

GEOMETRIC = sorted(name for name, spec in CATALOGUE.items() if spec.geometric)
SIZES = {"height": 90, "width": 84, "max_size": 90}
STRONG: dict[str, dict[str, Any]] = {
    "Affine": {"rotate": [-60.0, 60.0], "scale": [0.6, 1.6], "translate_percent": [-0.3, 0.3], "shear": [-20.0, 20.0]},
}
RADIUS = 4
few = settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
angles = st.floats(-math.pi, math.pi)


def policy(*names: str, **more: Any) -> Policy:
    fitting = [{key: value for key, value in SIZES.items() if key in CATALOGUE[name].options} | STRONG.get(name, {}) for name in names]
    return Policy(tuple(Step(name, values) for name, values in zip(names, fitting, strict=True)), **more)


def moved(policy_: Policy, image: np.ndarray, marks: Annotations, seed: int = 0) -> Any:
    return augment(image, policy_, AugmentationKey("marks", seed), marks, border=Border.CONSTANT)


def centres(mask: np.ndarray) -> np.ndarray:
    """Middles (N, 2) of a mask's pixels, x and y."""
    rows, columns = np.nonzero(mask)
    return np.stack([columns + 0.5, rows + 0.5], axis=1)


def aside(box: OrientedBox, points: np.ndarray) -> float:
    """How far the farthest of some points is outside a turned box, pixels; 0 or less where all are inside."""
    away = points - (box.center_x, box.center_y)
    along = away @ (math.cos(box.angle), math.sin(box.angle))
    down = away @ (-math.sin(box.angle), math.cos(box.angle))
    return float(max((np.abs(along) - box.width / 2).max(), (np.abs(down) - box.height / 2).max()))


def covered(box: OrientedBox, height: int, width: int) -> np.ndarray:
    """Pixels whose middle is inside a turned box."""
    y, x = np.mgrid[:height, :width] + 0.5
    along = (x - box.center_x) * math.cos(box.angle) + (y - box.center_y) * math.sin(box.angle)
    down = (y - box.center_y) * math.cos(box.angle) - (x - box.center_x) * math.sin(box.angle)
    return (np.abs(along) <= box.width / 2) & (np.abs(down) <= box.height / 2)


@pytest.mark.parametrize("name", GEOMETRIC)
@few
@given(seed=st.integers(0, 10_000), angle=angles, height=st.integers(80, 110), width=st.integers(80, 110))
def test_a_turned_box_still_contains_its_rectangle(name: str, seed: int, angle: float, height: int, width: int) -> None:
    box = OrientedBox("ship", width * 0.45, height * 0.55, 46.0, 22.0, angle, attributes=(("heading", "north"),))
    mask = covered(box, height, width).astype(np.uint8)
    image = (mask * 255)[:, :, None]
    out = moved(policy(name, min_visible_share=0.0), image, Annotations(mask=mask, oriented_boxes=(box,)), seed)
    found = out.annotations.oriented_boxes
    left = np.count_nonzero(out.annotations.mask)
    if not found:
        assert left <= 12
        assert out.lost == {"ship": 1}
        return
    assert (found[0].class_name, found[0].attributes) == ("ship", box.attributes)
    if left:
        # A number is that of the nearest pixel, which is half of a pixel away along each axis: of one that was enlarged, or not.
        pixel = max(1.0, math.sqrt(found[0].width * found[0].height / (box.width * box.height)))
        assert aside(found[0], centres(out.annotations.mask)) <= 0.75 * pixel
    if name in {"HorizontalFlip", "VerticalFlip", "D4", "Transpose", "RandomRotate90", "Rotate", "SafeRotate"}:
        # Nothing was bent: the box is as large as it was, not around a box around it.
        scale = math.hypot(*out.pixels.shape[:2]) / math.hypot(height, width) if name == "SafeRotate" else 1.0
        if scale == 1.0:
            assert found[0].width == pytest.approx(box.width, abs=1e-2)
            assert found[0].height == pytest.approx(box.height, abs=1e-2)


@pytest.mark.parametrize("name", GEOMETRIC)
@few
@given(seed=st.integers(0, 10_000), height=st.integers(80, 110), width=st.integers(80, 110))
def test_points_stay_on_their_dots(name: str, seed: int, height: int, width: int) -> None:
    y, x = np.mgrid[:height, :width]
    mask = np.zeros((height, width), np.uint8)
    points = []
    for number, (i, j) in enumerate([(i, j) for i in range(8, width - 8, 18) for j in range(8, height - 8, 18)], 1):
        mask[(x - i) ** 2 + (y - j) ** 2 <= RADIUS**2] = number
        points.append(Keypoint(str(number), i + 0.5, j + 0.5, visible=number % 2 == 0))
    image = (mask > 0).astype(np.uint8)[:, :, None] * 255
    marks = Annotations(mask=mask, keypoints=(Keypoints("sheet", tuple(points)),))
    out = moved(policy(name, min_visible_share=0.0), image, marks, seed)
    kept = {point.name: point for group in out.annotations.keypoints for point in group.points}
    assert len(kept) + out.points_lost.total() == len(points)
    high, wide = out.annotations.mask.shape
    seen = 0
    for number, point in enumerate(points, 1):
        dot = centres(out.annotations.mask == number)
        if len(dot) < 4:
            continue
        low, top = dot.min(axis=0), dot.max(axis=0)
        if (low < 2).any() or (top > (wide - 2, high - 2)).any():
            continue  # cut by the edge: the middle of what is left is another
        there = kept[point.name]
        assert there.visible == point.visible
        stretch = max(1.0, float((top - low + 1).max()) / (2 * RADIUS + 1))
        assert np.hypot(*(dot.mean(axis=0) - (there.x, there.y))) < stretch
        seen += 1
    for point in kept.values():
        assert 0 <= point.x <= wide
        assert 0 <= point.y <= high
    assert seen or CATALOGUE[name].resizes


@few
@given(seed=st.integers(0, 10_000), angle=angles)
def test_many_steps_do_not_blow_a_turned_box_up(seed: int, angle: float) -> None:
    box = OrientedBox("ship", 50.0, 45.0, 40.0, 12.0, angle)
    names = ("Rotate", "HorizontalFlip", "Rotate", "Transpose", "Rotate", "Rotate")
    out = moved(policy(*names, min_visible_share=0.0), np.zeros((100, 100, 1), np.uint8), Annotations(oriented_boxes=(box,)), seed)
    (found,) = out.annotations.oriented_boxes
    assert (found.width, found.height) == (pytest.approx(40.0, abs=0.02), pytest.approx(12.0, abs=0.02))


def test_a_mirror_keeps_the_heading_on_the_bow() -> None:
    box = OrientedBox("ship", 30.0, 20.0, 20.0, 8.0, 0.25)
    bow = Keypoint("bow", 30 + 10 * math.cos(0.25), 20 + 10 * math.sin(0.25))
    marks = Annotations(oriented_boxes=(box,), keypoints=(Keypoints("ship", (bow,)),))
    out = moved(policy("HorizontalFlip"), np.zeros((60, 80, 1), np.uint8), marks)
    (found,), (points,) = out.annotations.oriented_boxes, out.annotations.keypoints
    ahead = found.center_x + found.width / 2 * math.cos(found.angle), found.center_y + found.width / 2 * math.sin(found.angle)
    assert ahead == pytest.approx((points.points[0].x, points.points[0].y), abs=1e-4)


def test_what_leaves_is_dropped_and_counted() -> None:
    half = Policy((Step("CenterCrop", {"height": 40, "width": 40}),), min_visible_share=0.4)
    inside = OrientedBox("in", 50, 50, 20, 10, 0.6)
    third = OrientedBox("third", 30, 50, 20, 4, 0.0, instance=7)
    outside = OrientedBox("out", 10, 10, 12, 6, 1.0)
    points = tuple(Keypoint(name, x, 50.0) for name, x in (("nose", 45.0), ("tail", 75.0)))
    marks = Annotations(
        boxes=(Box("third", 20, 48, 20, 4, instance=7),),
        oriented_boxes=(inside, third, outside),
        keypoints=(Keypoints("dog", points), Keypoints("cat", (Keypoint("nose", 1.0, 1.0),))),
    )
    out = moved(half, np.zeros((100, 100, 1), np.uint8), marks)
    assert [(b.class_name, round(b.center_x, 3), round(b.center_y, 3)) for b in out.annotations.oriented_boxes] == [
        ("in", 20, 20), ("third", 0, 20),
    ]  # fmt: skip
    # The upright box of the same object is around what is left of it, the turned one whole, half of it outside.
    assert [(b.x, b.y, b.width, b.height) for b in out.annotations.boxes] == [(0, 18, 10, 4)]
    assert out.annotations.oriented_boxes[1].width == pytest.approx(20)
    assert [(k.class_name, [p.name for p in k.points]) for k in out.annotations.keypoints] == [("dog", ["nose"])]
    assert out.lost == {"out": 1, "cat": 1}
    assert out.points_lost == {"tail": 1, "nose": 1}


def test_an_outline_decides_over_box_and_points_of_its_object() -> None:
    crop = Policy((Step("CenterCrop", {"height": 40, "width": 40}),), min_visible_share=0.5)
    far = Polygons("dog", ((0.0, 0.0, 25.0, 0.0, 25.0, 90.0, 0.0, 90.0),), instance=3)
    marks = Annotations(
        polygons=(far,),
        oriented_boxes=(OrientedBox("dog", 50, 50, 10, 10, 0, instance=3),),
        keypoints=(Keypoints("dog", (Keypoint("nose", 50, 50),), instance=3),),
    )
    out = moved(crop, np.zeros((100, 100, 1), np.uint8), marks)
    assert not out.annotations
    assert out.lost == {"dog": 1}


def test_colour_alone_leaves_turned_boxes_and_points_as_they_are() -> None:
    marks = Annotations(
        oriented_boxes=(OrientedBox("a", 50, 50, 10.125, 7, 0.1),), keypoints=(Keypoints("a", (Keypoint("p", 3.3, 200.0),)),)
    )
    out = moved(policy("InvertImg"), np.zeros((100, 100, 1), np.uint8), marks)
    assert (out.annotations.oriented_boxes, out.annotations.keypoints) == (marks.oriented_boxes, marks.keypoints)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(3, 30), angles)
def test_the_rectangle_around_points_contains_them_and_is_no_larger_than_opencvs(seed: int, count: int, angle: float) -> None:
    points = np.random.default_rng(seed).uniform(0, 500, (count, 2))
    box = around(OrientedBox("a", 0, 0, 1, 1, 0), points, np.array([math.cos(angle), math.sin(angle)]))
    assert aside(box, points) < 1e-6
    _, (width, height), _ = cv2.minAreaRect(points.astype(np.float32))
    assert box.width * box.height <= width * height * (1 + 1e-4) + 1e-3
    assert abs(math.remainder(box.angle - angle, 2 * math.pi)) <= math.pi / 4 + 1e-6


@pytest.mark.parametrize("name", GEOMETRIC)
def test_the_border_does_not_move_annotations(name: str) -> None:
    # albumentations gives the mirror images of points too where the border is mirrored.
    marks = Annotations(
        boxes=(Box("a", 30, 40, 20, 10),),
        polygons=(Polygons("a", ((60.0, 20.0, 75.0, 25.0, 70.0, 35.0),)),),
        oriented_boxes=(OrientedBox("a", 50, 50, 30, 12, 0.4),),
        keypoints=(Keypoints("a", (Keypoint("p", 48, 52), Keypoint("q", 5, 9)),),),
    )  # fmt: skip
    image = np.random.default_rng(0).integers(0, 255, (96, 100, 3), np.uint8)
    key = AugmentationKey("marks", 3)
    one, two = (augment(image, policy(name), key, marks, border=border) for border in (Border.CONSTANT, Border.REFLECT))
    assert one.annotations == two.annotations
    assert (one.lost, one.points_lost) == (two.lost, two.points_lost)
