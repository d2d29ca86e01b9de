"""What holds of every transform of the catalogue, whatever is drawn: on drawn discs, and on real images where there are any."""

from __future__ import annotations

import random
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oteo_core.augmentation import CATALOGUE, Annotations, AugmentationKey, Border, Policy, Step, augment, refusal
from oteo_core.augmentation.moving import Motion, Mover
from oteo_core.datasets.annotations import Box
from oteo_core.errors import InvalidArgument
from oteo_core.images import ImageLimits
from oteo_core.images.sequences import open_frames

EVERY = sorted(CATALOGUE)
GEOMETRIC = sorted(name for name, spec in CATALOGUE.items() if spec.geometric)
SIZES = {"height": 90, "width": 84, "max_size": 90}
RADIUS = 7
few = settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def step(name: str) -> Step:
    return Step(name, {key: value for key, value in SIZES.items() if key in CATALOGUE[name].options})


def moved(name: str, pixels: np.ndarray, given_: Annotations, seed: int, *, share: float = 0.0) -> Any:
    policy = Policy((step(name),), min_visible_share=share)
    return augment(pixels, policy, AugmentationKey("discs", seed), given_, border=Border.CONSTANT)


def discs(height: int, width: int) -> tuple[np.ndarray, np.ndarray, list[tuple[int, int]]]:
    """Give an image of white discs (H, W, 1) float32, a label image of them and their middles; some are cut by the edge.

    Most of the edge is black, so that black comes in from outside.
    """
    y, x = np.mgrid[:height, :width]
    labels = np.zeros((height, width), np.uint16)
    middles = [(i, j) for i in range(6, width, 22) for j in range(6, height, 22)]
    for number, (i, j) in enumerate(middles, 1):
        labels[(x - i) ** 2 + (y - j) ** 2 <= RADIUS**2] = number * 250
    return (labels > 0).astype(np.float32)[:, :, None], labels, middles


sides = st.integers(80, 110)


@pytest.mark.parametrize("name", GEOMETRIC)
@few
@given(seed=st.integers(0, 10_000), height=sides, width=sides)
def test_discs_in_image_mask_and_boxes_stay_together(name: str, seed: int, height: int, width: int) -> None:
    image, labels, middles = discs(height, width)
    numbers = [int(number) for number in np.unique(labels) if number]
    boxes = []
    for number in numbers:
        rows, columns = np.nonzero(labels == number)
        boxes.append(Box(str(number), columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1))
    out = moved(name, image, Annotations(boxes=tuple(boxes), mask=labels, mask_instances=True), seed)
    mask, pixels = out.annotations.mask, out.pixels[:, :, 0]
    # No number that was not there.
    assert set(np.unique(mask)) <= set(np.unique(labels))
    found = {box.class_name: box for box in out.annotations.boxes}
    whole = 0
    for number in numbers:
        rows, columns = np.nonzero(mask == number)
        if len(rows) < 4:
            continue
        # A box that was around its object is still around it.
        box = found[str(number)]
        assert box.x <= columns.min() + 1
        assert box.y <= rows.min() + 1
        assert box.x + box.width >= columns.max()
        assert box.y + box.height >= rows.max()
        top, left, bottom, right = rows.min() - 2, columns.min() - 2, rows.max() + 3, columns.max() + 3
        if top < 0 or left < 0 or bottom > mask.shape[0] or right > mask.shape[1]:
            continue
        i, j = middles[number // 250 - 1]
        if not (RADIUS < i < width - 1 - RADIUS and RADIUS < j < height - 1 - RADIUS):
            continue  # cut by the original's edge, where the light fades and a number does not
        # The middle of the light is that of the mask, to half a pixel along each axis: a number is that of the nearest pixel.
        # Where the image is enlarged or stretched, it is half of a stretched pixel.
        half = 0.5 * max(1.0, (max(np.ptp(rows), np.ptp(columns)) + 1) / (2 * RADIUS + 1))
        near = cv2.dilate((mask == number).astype(np.uint8), np.ones((3, 3), np.uint8))[top:bottom, left:right]
        light = pixels[top:bottom, left:right] * near
        down, across = np.mgrid[top:bottom, left:right]
        aside = (light * across).sum() / light.sum() - columns.mean(), (light * down).sum() / light.sum() - rows.mean()
        assert np.abs(aside).max() < half, aside
        whole += 1
    assert whole or CATALOGUE[name].resizes


@pytest.mark.parametrize("name", GEOMETRIC)
@few
@given(seed=st.integers(0, 10_000), share=st.sampled_from([0.1, 0.3, 0.5, 0.8]))
def test_an_object_that_keeps_its_share_is_kept_and_another_is_lost(name: str, seed: int, share: float) -> None:
    image, labels, middles = discs(104, 96)
    transform = CATALOGUE[name].build(step(name).parameters)
    if hasattr(transform, "border_mode"):
        transform.border_mode = 0
    transform.set_random_state(np.random.default_rng(seed), random.Random(seed))
    after = np.asarray(transform(image=image)["image"]).shape[:2]
    motion = Motion(name, transform, transform.get_applied_params(), image.shape[:2], after)
    seen = motion.numbers(labels)
    mover = Mover(Annotations(mask=labels, mask_instances=True))
    mover.move(motion)
    kept = set(np.unique(mover.result(share)[0].mask))
    angles = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    for number, (i, j) in enumerate(middles, 1):
        if not (RADIUS <= i < 96 - RADIUS and RADIUS <= j < 104 - RADIUS):
            continue  # cut in the original already: what it was in whole nobody knows
        ring = motion.points(np.stack([i + 0.5 + RADIUS * np.cos(angles), j + 0.5 + RADIUS * np.sin(angles)], axis=1))
        x, y = ring[:, 0], ring[:, 1]
        area = 0.5 * abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))
        left = np.count_nonzero(seen == number * 250) / area
        if left >= min(share + 0.12, 0.9):
            assert number * 250 in kept, left
        elif left <= share - 0.12:
            assert number * 250 not in kept, left


@pytest.mark.parametrize("name", EVERY)
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    dtype=st.sampled_from(["uint8", "uint16", "float32"]),
    channels=st.integers(1, 6),
    height=st.integers(24, 60),
    width=st.integers(24, 60),
    seed=st.integers(0, 10_000),
)
def test_type_and_channels_are_kept_or_refused_with_the_catalogues_reason(
    name: str, dtype: str, channels: int, height: int, width: int, seed: int
) -> None:
    coarse = np.random.default_rng(seed).random((6, 6, 6), np.float32)
    smooth = np.stack([cv2.resize(coarse[:, :, i], (width, height)) for i in range(channels)], axis=2)
    full = {"uint8": 255, "uint16": 65535, "float32": 1}[dtype]
    image = np.ascontiguousarray((smooth * full).astype(dtype))
    why = refusal(step(name), image)
    assert why == CATALOGUE[name].refusal(dtype, channels)
    if why:
        assert name in why
        with pytest.raises(InvalidArgument) as caught:
            moved(name, image, Annotations(), seed)
        assert (caught.value.reason, caught.value.message) == ("TRANSFORM_NOT_DEFINED", why)
        return
    out = moved(name, image, Annotations(), seed).pixels
    assert (out.dtype.name, out.shape[2]) == (dtype, channels)
    assert np.isfinite(out).all()
    assert 0 <= out.min() <= out.max() <= full


def _read(path: Path, flag: int = cv2.IMREAD_UNCHANGED) -> np.ndarray:
    pixels = cv2.imread(str(path), flag)
    assert pixels is not None, path
    return np.ascontiguousarray(pixels[..., ::-1] if pixels.ndim == 3 else pixels)


def _first(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    assert found, f"no {pattern} under {folder}"
    return found[0]


def _dicom(path: Path) -> np.ndarray:
    return next(open_frames(path.read_bytes(), ImageLimits(), path.name).frames).pixels


def real_samples(root: Path) -> dict[str, tuple[np.ndarray, Annotations]]:
    """Give a real image with its annotations for each task."""
    smear = _first(root / "bccd", "JPEGImages/*.jpg")
    parsed = ET.parse(root / "bccd" / "Annotations" / f"{smear.stem}.xml").getroot()
    boxes = []
    for item in parsed.iter("object"):
        left, top, right, bottom = (float(item.findtext(f"bndbox/{side}", "")) for side in ("xmin", "ymin", "xmax", "ymax"))
        if right > left and bottom > top:
            boxes.append(Box(item.findtext("name", ""), left, top, right - left, bottom - top))
    assert boxes
    tissue = _first(root / "dsb2018_nuclei_compact" / "color_HE" / "images", "*.png")
    nuclei = _read(tissue.parent.parent / "labels" / tissue.name)
    cell = _first(root / "wbc_zheng" / "domain1" / "images", "*")
    parts = _read(_first(root / "wbc_zheng" / "domain1" / "masks", f"{cell.stem}.*"), cv2.IMREAD_GRAYSCALE)
    slice_ = root / "isbi2012_em" / "train" / "image" / "0.png"
    grey = _read(slice_, cv2.IMREAD_GRAYSCALE)[:200, :220, None]
    membrane = _read(slice_.parent.parent / "label" / "0.png", cv2.IMREAD_GRAYSCALE)[:200, :220]
    tomogram, resonance = (_dicom(root / "dicom_pydicom" / "test_files" / f"{name}.dcm") for name in ("CT_small", "MR_small_RLE"))
    assert (tomogram.dtype, resonance.dtype) == (np.float32, np.uint16)
    return {
        "classification": (_read(cell)[:, :, :3], Annotations()),
        "multi_label_classification": (grey.astype(np.uint16) * 257, Annotations()),
        "detection": (_read(smear), Annotations(boxes=tuple(boxes))),
        "instance_segmentation": (_read(tissue)[:, :, :3], Annotations(mask=nuclei, mask_instances=True)),
        "semantic_segmentation": (_read(cell)[:, :, :3], Annotations(mask=parts)),
        "semantic_segmentation of a slice": (grey, Annotations(mask=membrane)),
        "semantic_segmentation of floats": (grey.astype(np.float32) / 255, Annotations(mask=membrane)),
        "semantic_segmentation of Hounsfield units": (tomogram, Annotations(mask=(tomogram[:, :, 0] > 0).astype(np.uint8))),
        "semantic_segmentation of twelve bits": (resonance, Annotations(mask=(resonance[:, :, 0] > 700).astype(np.uint8))),
    }


@pytest.mark.parametrize("name", EVERY)
def test_every_task_of_a_transform_on_real_images(name: str, samples: dict[str, Any]) -> None:
    told = CATALOGUE[name].tasks
    ran = 0
    for task, (image, given_) in samples.items():
        if CATALOGUE[name].needs_objects and task.endswith("classification"):
            continue
        assert task.split(" of ")[0] in told
        image = np.ascontiguousarray(image)
        if refusal(Step(name), image):
            continue
        out = moved(name, image, given_, 0, share=0.1)
        ran += 1
        assert (out.pixels.dtype, out.pixels.shape[2]) == (image.dtype, image.shape[2])
        assert np.isfinite(out.pixels).all()
        found = out.annotations
        height, width = out.pixels.shape[:2]
        assert len(found.boxes) + out.lost.total() == len(given_.boxes) or given_.mask is not None
        for box in found.boxes:
            assert box.x >= 0
            assert box.y >= 0
            assert box.x + box.width <= width + 1e-6
            assert box.y + box.height <= height + 1e-6
        if given_.mask is not None:
            assert found.mask.shape == (height, width)
            assert found.mask.dtype == given_.mask.dtype
            assert set(np.unique(found.mask)) <= {0, *np.unique(given_.mask)}
            if not CATALOGUE[name].geometric:
                np.testing.assert_array_equal(found.mask, given_.mask)
    assert ran


@pytest.fixture(scope="module")
def samples(real_data: Path) -> dict[str, tuple[np.ndarray, Annotations]]:
    """Real images of each task, read once."""
    return real_samples(real_data)
