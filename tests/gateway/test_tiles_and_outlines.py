"""Images larger than a model's input, cut and put together; outlines of regions; answers drawn."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from judged_models import MODELS, publish

from oteo_core.artifacts import ArtifactStore
from oteo_core.errors import InvalidArgument, Unimplemented
from oteo_core.images import decode
from oteo_core.packages import ModelPackage
from oteo_gateway.prediction.drawing import draw_answer
from oteo_gateway.prediction.outlines import outlines_of
from oteo_gateway.prediction.regions import find_boxes, find_classes, find_instances
from oteo_gateway.prediction.tiling import cut_tiles, join_tiles, on_canvas, plan_tiles, worth_tiling

# Left, top, width, height and colour; each crosses where some window ends, and no window of 64 original pixels sees two.
SQUARES = ((10, 12, 30, 26, 0), (150, 10, 40, 34, 1), (44, 110, 38, 38, 1), (200, 120, 28, 44, 0))


def scene(width: int = 256, height: int = 192) -> np.ndarray:
    pixels = np.zeros((height, width, 3), np.uint8)
    for left, top, wide, high, colour in SQUARES:
        pixels[top : top + high, left : left + wide, colour] = 220
    return pixels


def package_of(tmp_path: Path, task: str, decoding: dict[str, object], trained: tuple[int, int] | None = (64, 64)) -> ModelPackage:
    return publish(ArtifactStore(f"file://{tmp_path}"), task, decoding=decoding, training_size=trained)


def outputs_of(task: str, parts: list[np.ndarray]) -> list[dict[str, np.ndarray]]:
    made, _, outputs = MODELS[task]
    with torch.no_grad():
        found = [made()(torch.from_numpy(np.ascontiguousarray(part))[None]) for part in parts]
    return [{output.name: value.numpy() for output, value in zip(outputs, values, strict=True)} for values in found]


def joined(package: ModelPackage, pixels: np.ndarray) -> tuple[dict[str, np.ndarray], ModelPackage]:
    tiles = plan_tiles((pixels.shape[1], pixels.shape[0]), package)
    assert tiles is not None
    parts = cut_tiles(pixels, tiles, 8)
    assert {part.shape for part in parts} == {(32, 32, 3)}
    return join_tiles(outputs_of(package.task, parts), tiles), on_canvas(package, tiles)


def test_every_pixel_is_seen_and_neighbours_overlap(tmp_path: Path) -> None:
    package = package_of(tmp_path, "semantic_segmentation", {})
    tiles = plan_tiles((500, 310), package)
    assert tiles is not None
    assert (tiles.canvas.width, tiles.canvas.height) == (250, 155)
    seen = np.zeros((155, 250), int)
    for left, top in tiles.corners:
        assert 0 <= left <= 250 - 32
        assert 0 <= top <= 155 - 32
        seen[top : top + 32, left : left + 32] += 1
    assert seen.min() >= 1
    lefts = sorted({left for left, _ in tiles.corners})
    assert max(np.diff(lefts)) <= 24, "neighbours share a quarter"


def test_classes_of_a_large_image_are_those_of_its_pixels(tmp_path: Path) -> None:
    pixels = scene()
    outputs, package = joined(
        package_of(tmp_path, "semantic_segmentation", {"smallest": [4, 4], "largest_foreground": True, "largest": [True, True]}), pixels
    )
    answer = find_classes(outputs, (256, 192), package, None)
    truth = np.where(pixels[..., 0] > 100, 1, np.where(pixels[..., 1] > 100, 2, 0))
    wrong = (answer.labels != truth).mean()
    assert wrong < 0.01
    assert sorted(region.class_name for region in answer.regions) == ["green", "green", "red", "red"]


def test_objects_of_a_large_image_are_found_once_and_whole(tmp_path: Path) -> None:
    pixels = scene()
    outputs, package = joined(package_of(tmp_path, "instance_segmentation", {"score": 0.3}), pixels)
    regions = find_instances(outputs, (256, 192), package, None, None).regions
    assert len(regions) == len(SQUARES)
    for left, top, wide, high, colour in SQUARES:
        (found,) = [r for r in regions if abs(r.box[0] - left) <= 3 and abs(r.box[1] - top) <= 3]
        assert found.class_name == ("red", "green")[colour]
        assert found.area == pytest.approx(wide * high, rel=0.12)

    outputs, package = joined(package_of(tmp_path, "detection", {"score_threshold": 0.5}), pixels)
    objects = find_boxes(outputs, (256, 192), package, None).objects
    assert len(objects) == len(SQUARES)
    for left, top, wide, high, colour in SQUARES:
        (box,) = [b for _, _, b in objects if abs(b[0] - left) <= 3 and abs(b[1] - top) <= 3]
        assert box == pytest.approx((left, top, left + wide, top + high), abs=3)
        assert any(name == ("red", "green")[colour] for name, _, b in objects if b == box)


def test_without_tiles_small_things_of_a_large_image_are_lost_or_coarse(tmp_path: Path) -> None:
    """What tiling is for: a dot of three pixels is seen at the training's scale and not when the image is shrunk to the input."""
    from oteo_core.images import prepare

    pixels = np.zeros((384, 512, 3), np.uint8)
    pixels[100:104, 300:304, 0] = 220
    plain = package_of(tmp_path, "semantic_segmentation", {})
    (small,) = outputs_of("semantic_segmentation", [prepare(pixels, plain.input)])
    assert not find_classes(small, (512, 384), plain, None).regions
    outputs, package = joined(plain, pixels)
    (region,) = find_classes(outputs, (512, 384), package, None).regions
    assert region.area == pytest.approx(16, abs=8)


def test_what_needs_no_tiles_and_what_cannot_have_them(tmp_path: Path) -> None:
    package = package_of(tmp_path, "detection", {})
    assert plan_tiles((64, 64), package) is None
    assert plan_tiles((78, 50), package) is None
    assert worth_tiling((200, 64), package)
    with pytest.raises(InvalidArgument) as caught:
        plan_tiles((20_000, 20_000), package)
    assert caught.value.reason == "TOO_MANY_TILES"
    for other in (
        package_of(tmp_path, "detection", {}, trained=None),
        package_of(tmp_path, "classification", {}),
        package_of(tmp_path, "instance_segmentation", {"method": "masks"}),
    ):
        assert not worth_tiling((640, 640), other)
        with pytest.raises(Unimplemented) as refused:
            plan_tiles((640, 640), other)
        assert refused.value.reason == "TILING"


def test_a_narrow_image_is_drawn_out_to_the_window(tmp_path: Path) -> None:
    pixels = np.zeros((40, 400, 3), np.uint8)
    pixels[8:32, 200:240, 1] = 220
    outputs, package = joined(package_of(tmp_path, "detection", {"score_threshold": 0.5}), pixels)
    (found,) = find_boxes(outputs, (400, 40), package, None).objects
    assert found[2] == pytest.approx((200, 8, 240, 32), abs=3)


def rings_area(rings: tuple[tuple[float, ...], ...]) -> float:
    total = 0.0
    for ring in rings:
        x, y = np.array(ring).reshape(-1, 2).T
        total += abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2
    return total


@pytest.mark.parametrize("seed", range(8))
def test_exact_outlines_hold_just_the_pixels(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = cv2.GaussianBlur(rng.random((40, 50)).astype(np.float32), (0, 0), 3) > 0.5
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = cv2.drawContours(np.zeros(mask.shape, np.uint8), contours, -1, 1, cv2.FILLED)
    exact = outlines_of(mask, tolerance=0)
    assert rings_area(exact) == pytest.approx(float(filled.sum()))
    assert all(value == round(value) for ring in exact for value in ring)
    simple = outlines_of(mask)
    assert rings_area(simple) == pytest.approx(rings_area(exact), rel=0.05)
    assert sum(map(len, simple)) < 0.7 * sum(map(len, exact))


def test_outlines_lie_in_the_image_and_fill_holes() -> None:
    assert outlines_of(np.ones((1, 1), bool), 7, 9) == ((7.0, 9.0, 7.0, 10.0, 8.0, 10.0, 8.0, 9.0),)
    ring = np.ones((9, 9), bool)
    ring[3:6, 3:6] = False
    (outline,) = outlines_of(ring)
    assert rings_area((outline,)) == 81
    apart = np.zeros((5, 9), bool)
    apart[:, :3] = apart[:, 6:] = True
    assert len(outlines_of(apart)) == 2


@pytest.mark.parametrize("task", ["detection", "semantic_segmentation", "instance_segmentation"])
def test_a_drawing_marks_what_was_found_and_leaves_the_rest(tmp_path: Path, task: str) -> None:
    pixels = np.full((60, 64, 3), 90, np.uint8)
    pixels[10:34, 20:44] = (220, 0, 0)
    package = package_of(tmp_path, task, {"score": 0.3})
    from oteo_core.images import prepare

    (outputs,) = outputs_of(task, [prepare(pixels, package.input)])
    find = {
        "detection": lambda: find_boxes(outputs, (64, 60), package, None),
        "semantic_segmentation": lambda: find_classes(outputs, (64, 60), package, None),
        "instance_segmentation": lambda: find_instances(outputs, (64, 60), package, None, None),
    }[task]
    drawn = decode(draw_answer(pixels, find(), package, outputs)).pixels
    factor = drawn.shape[0] // 60
    plain = np.repeat(np.repeat(pixels, factor, axis=0), factor, axis=1)
    changed = (drawn != plain).any(axis=2)
    assert changed.any()
    assert not changed[: 4 * factor, : 10 * factor].any()
    assert not changed[44 * factor :].any()
