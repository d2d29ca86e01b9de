"""The second engine gives what the first does, from the same draws, within what the catalogue states for each transform.

It runs on the processor here; a graphics processor takes the same code (OTEO_TEST_DEVICE names another device).
"""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache, partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch._subclasses import fake_tensor

from oteo_core.augmentation import CATALOGUE, PRESETS, AugmentationKey, Policy, Step, augment, default_policy, preset_policy, refusal
from oteo_core.augmentation.applying import Augmented, Course
from oteo_core.augmentation.batches import augment_batch
from oteo_core.augmentation.catalogue.agreement import AGREEMENT, SAME, Bound
from oteo_core.augmentation.engines.base import Border, Drawn
from oteo_core.augmentation.engines.choosing import LEAST_PIXELS, choose_engine
from oteo_core.augmentation.engines.cpu import CpuEngine
from oteo_core.augmentation.engines.drawing import edge_of
from oteo_core.augmentation.engines.gpu import KorniaEngine
from oteo_core.augmentation.moving import Annotations
from oteo_core.augmentation.policy import Mode
from oteo_core.datasets.annotations import Box, Polygons, Rle
from oteo_core.datasets.runs import runs_from_mask
from oteo_core.errors import FailedPrecondition, InvalidArgument

DEVICE = os.environ.get("OTEO_TEST_DEVICE", "cpu")
BOTH = sorted(AGREEMENT)
FULL = {"uint8": 255.0, "uint16": 65535.0, "float32": 1.0}
HEIGHT, WIDTH, COUNT = 90, 104, 5
SIZES = {"height": 64, "width": 70, "max_size": 70}
UNDRAWN = {
    *("HorizontalFlip", "VerticalFlip", "Transpose", "CenterCrop", "Resize", "LongestMaxSize", "SmallestMaxSize"),
    *("InvertImg", "NoOp", "ToGray", "change_to_hsv", "change_to_lab"),
}
"""Transforms that do the same to every image."""


@cache
def engine() -> KorniaEngine:
    return KorniaEngine(DEVICE)


@cache
def picture(dtype: str, channels: int, number: int, height: int = HEIGHT, width: int = WIDTH) -> NDArray[Any]:
    """Draw smooth tissue with discs that have sharp edges, and noise."""
    rng = np.random.default_rng((number, channels))
    planes = [cv2.resize(rng.random((9, 11), np.float32), (width, height), interpolation=cv2.INTER_CUBIC) for _ in range(channels)]
    drawn = np.stack(planes, axis=2)
    y, x = np.mgrid[:height, :width]
    for _ in range(6):
        i, j, radius = rng.integers(0, width), rng.integers(0, height), rng.integers(3, 12)
        drawn[(x - i) ** 2 + (y - j) ** 2 < radius**2] = rng.random(channels)
    drawn = np.clip(drawn + 0.02 * rng.standard_normal(drawn.shape), 0, 1)
    pixels = ((0.04 + 0.9 * drawn) * FULL[dtype]).astype(dtype)
    pixels.setflags(write=False)
    return pixels


def step(name: str, **parameters: object) -> Step:
    fitting = {key: value for key, value in SIZES.items() if key in CATALOGUE[name].options}
    return Step(name, {**fitting, **parameters})


def drawn_for(policy: Policy, image: NDArray[Any], sample: str, border: Border) -> Drawn:
    course = Course(image, policy, AugmentationKey(sample), border=border)
    drawn = course.draw(course.turns[0], image.shape, partial(edge_of, image))
    assert drawn is not None
    return drawn


def apart(one: NDArray[Any], other: NDArray[Any], full: float, bound: Bound) -> str:
    """Say how two images are farther apart than a bound; empty if they are not."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return f"{one.shape} {one.dtype} against {other.shape} {other.dtype}"
    away = np.abs(one.astype(np.float64) - other) / full * 255
    beyond = float(np.mean(away > bound.far + 1e-6))
    if away.mean() > bound.mean + 1e-9 or beyond > bound.share:
        return f"mean {away.mean():.4f}, largest {away.max():.3f}, {beyond:.5f} beyond {bound.far}"
    return ""


def kinds(name: str) -> list[tuple[str, int, bool]]:
    """Give the pixels that a transform is defined for: type, channels, and whether they go beyond 0 to 1."""
    every = [(dtype, channels, False) for dtype in FULL for channels in (1, 3, 5)] + [("float32", 1, True), ("float32", 3, True)]
    return [
        (dtype, channels, beyond) for dtype, channels, beyond in every if not refusal(step(name), images_of(dtype, channels, beyond)[0])
    ]


def images_of(dtype: str, channels: int, beyond: bool) -> list[NDArray[Any]]:
    images = [picture(dtype, channels, number) for number in range(COUNT)]
    return [image * np.float32(900) - np.float32(100) for image in images] if beyond else images


def test_what_the_catalogue_says_of_engines_is_what_there_is() -> None:
    assert engine().names == set(AGREEMENT)
    assert {name for name, spec in CATALOGUE.items() if "gpu" in spec.engines} == set(AGREEMENT)
    assert all(spec.engines[0] == "cpu" for spec in CATALOGUE.values())
    assert len(AGREEMENT) >= 50


@pytest.mark.parametrize("border", list(Border))
@pytest.mark.parametrize("name", BOTH)
def test_both_engines_do_the_same_with_a_draw(name: str, border: Border) -> None:
    policy = Policy((step(name),))
    assert kinds(name)
    for dtype, channels, beyond in kinds(name):
        images = images_of(dtype, channels, beyond)
        bound, full = AGREEMENT[name].bound(dtype), 900.0 if beyond else FULL[dtype]
        drawn = [drawn_for(policy, image, str(number), border) for number, image in enumerate(images)]
        others = [drawn_for(policy, image, f"other {number}", border) for number, image in enumerate(images)]
        first = [CpuEngine().apply(one, image) for one, image in zip(drawn, images, strict=True)]
        planes = [engine().upload(image) for image in images]
        before = [plane.clone() for plane in planes]
        second = [engine().download(plane, images[0].dtype) for plane in engine().apply_batch(drawn, planes, images[0].dtype)]
        assert all(bool((plane == kept).all()) for plane, kept in zip(planes, before, strict=True))
        for one, other in zip(first, second, strict=True):
            assert not apart(one, other, full, bound), (dtype, channels, beyond, apart(one, other, full, bound))
            assert other.flags.c_contiguous
        # The bound is narrow enough to tell an image that was left alone, and one that another draw was applied to.
        assert any(apart(one, image, full, bound) for one, image in zip(first, images, strict=True)) == (name != "NoOp"), (dtype, channels)
        wrong = [engine().apply(one, image) for one, image in zip(others, images, strict=True)]
        assert any(apart(one, other, full, bound) for one, other in zip(first, wrong, strict=True)) == (name not in UNDRAWN)
        # Each image of a batch has its own draw.
        alone = [engine().apply(one, image) for one, image in zip(drawn, images, strict=True)]
        for one, other in zip(second, alone, strict=True):
            assert not apart(one, other, full, Bound(0.002, 1.0 if dtype == "uint8" else 0.02, 0.0))


@pytest.mark.parametrize("name", BOTH)
def test_a_step_keeps_to_its_device(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With tensors that are said to be on a graphics processor and hold nothing: one left on the processor fails, as it would there."""
    # Else single numbers are worked on for real, which takes the processor that is not there.
    monkeypatch.setattr(fake_tensor, "CONSTANT_NUMEL_LIMIT", 0)
    for border in Border:
        policy, images = Policy((step(name),)), images_of(CATALOGUE[name].pixel_types[0], 3, False)
        drawn = [drawn_for(policy, image, str(number), border) for number, image in enumerate(images)]
        # Without cuDNN, one of whose functions has no such stand-in.
        with fake_tensor.FakeTensorMode(allow_non_fake_inputs=True), torch.backends.cudnn.flags(enabled=False):
            planes = [torch.empty(3, HEIGHT, WIDTH, device="cuda") for _ in images]
            done = engine().apply_batch(drawn, planes, images[0].dtype)
            assert len(done) == COUNT
            assert all(plane.device.type == "cuda" and plane.dtype == torch.float32 for plane in done)


def test_a_batch_that_does_not_fit_into_memory_is_done_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    images = images_of("uint8", 3, False)
    policy = Policy((step("Affine"),))
    drawn = [drawn_for(policy, image, str(number), Border.REFLECT) for number, image in enumerate(images)]
    whole = engine().apply_batch(drawn, [engine().upload(image) for image in images], images[0].dtype)
    most, sizes = 2, []

    def done(self: KorniaEngine, step: Any, drawn: Any, planes: torch.Tensor, dtype: Any) -> list[torch.Tensor]:
        sizes.append(len(planes))
        if len(planes) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(self, step, drawn, planes, dtype)

    original = KorniaEngine._done
    monkeypatch.setattr(KorniaEngine, "_done", done)
    parts = engine().apply_batch(drawn, [engine().upload(image) for image in images], images[0].dtype)
    assert sizes == [5, 2, 3, 1, 2]
    for one, other in zip(whole, parts, strict=True):
        assert bool((one - other).abs().max() <= 1)
    most = 0
    alone = engine().apply_batch(drawn, [engine().upload(image) for image in images], images[0].dtype)
    for one, image, plane in zip(drawn, images, alone, strict=True):
        np.testing.assert_array_equal(engine().download(plane, image.dtype), CpuEngine().apply(one, image))


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("shape", [(1, 1), (1, 17), (3, 2), (20, 9)])
def test_tiny_images_are_as_with_the_first_engine(name: str, shape: tuple[int, int]) -> None:
    for dtype in CATALOGUE[name].pixel_types:
        image = np.ascontiguousarray(picture(dtype, 3, 1)[: shape[0], : shape[1]])
        for border in Border:
            policy = Policy((step(name),))
            try:
                first = augment(image, policy, AugmentationKey("tiny"), border=border)
            except (InvalidArgument, ValueError) as error:
                with pytest.raises(type(error)):
                    augment_batch([image], policy, [AugmentationKey("tiny")], engine="gpu", device=DEVICE, border=border)
                continue
            (second,) = augment_batch([image], policy, [AugmentationKey("tiny")], engine="gpu", device=DEVICE, border=border)
            bound = AGREEMENT[name].bound(dtype)
            # One of so few values may be rounded the other way.
            loose = bound if AGREEMENT[name] is SAME else Bound(1.0, max(6.0, bound.far), bound.share)
            assert not apart(first.pixels, second.pixels, FULL[dtype], loose), apart(first.pixels, second.pixels, FULL[dtype], loose)


def marked(number: int, height: int = HEIGHT, width: int = WIDTH) -> Annotations:
    rng = np.random.default_rng(number)
    y, x = np.mgrid[:height, :width]
    labels = np.zeros((height, width), np.uint16)
    boxes, polygons, runs = [], [], []
    for index in range(1, 6):
        i, j, radius = (int(value) for value in (rng.integers(10, width - 10), rng.integers(10, height - 10), rng.integers(4, 10)))
        disc = (x - i) ** 2 + (y - j) ** 2 <= radius**2
        labels[disc] = index * 300
        boxes.append(Box("cell", i - radius, j - radius, 2 * radius, 2 * radius))
        ring = (i - radius, j - radius, i + radius, j - radius, i, j + radius)
        polygons.append(Polygons("cell", (tuple(map(float, ring)),)))
        runs.append(Rle("cell", height, width, runs_from_mask(disc)))
    return Annotations(tuple(boxes), tuple(polygons), tuple(runs), labels, mask_instances=True)


def same_but_pixels(one: Augmented, other: Augmented) -> None:
    assert (one.lost, one.steps, one.drawn, one.mirrored) == (other.lost, other.steps, other.drawn, other.mirrored)
    assert one.annotations.boxes == other.annotations.boxes
    assert one.annotations.polygons == other.annotations.polygons
    assert one.annotations.rle == other.annotations.rle
    if one.annotations.mask is None:
        assert other.annotations.mask is None
    else:
        np.testing.assert_array_equal(one.annotations.mask, other.annotations.mask)


@pytest.mark.parametrize("border", list(Border))
@pytest.mark.parametrize("name", [name for name in BOTH if CATALOGUE[name].geometric])
def test_annotations_are_equal_whatever_the_engine(name: str, border: Border) -> None:
    images = [picture("uint8", 3, number) for number in range(3)]
    keys, marks = [AugmentationKey(str(number)) for number in range(3)], [marked(number) for number in range(3)]
    policy = Policy((step(name), Step("HorizontalFlip", probability=0.5)))
    first = augment_batch(images, policy, keys, marks, engine="cpu", border=border)
    second = augment_batch(images, policy, keys, marks, engine="gpu", device=DEVICE, border=border)
    moved = False
    for one, other, mark in zip(first, second, marks, strict=True):
        same_but_pixels(one, other)
        assert not apart(one.pixels, other.pixels, 255, AGREEMENT[name].bound("uint8"))
        moved |= one.annotations.boxes != mark.boxes or not np.array_equal(one.annotations.mask, mark.mask)
    assert moved


MANY = Policy(
    (
        Step("Affine", {"rotate": [-20, 20]}, 0.7),
        Step("D4", probability=0.7),
        Step("GaussNoise", probability=0.5),
        Step("ImageCompression", probability=0.5, optional=True),  # the first engine's alone
        Step("RandomGamma"),
        Step("RandomScale", probability=0.5),
        Step("ColorJitter", probability=0.5, optional=True),
        Step("GaussianBlur", probability=0.5),
    )
)


def mixture() -> tuple[list[NDArray[Any]], list[AugmentationKey], list[Annotations | None]]:
    images = [picture("uint8", 3, number) for number in range(4)]
    images += [
        picture("uint8", 1, 4, 64, 120),
        picture("uint16", 1, 5),
        picture("uint16", 3, 6),
        picture("float32", 3, 7),
        picture("float32", 5, 8),
    ]
    marks = [marked(number, image.shape[0], image.shape[1]) if number % 2 else None for number, image in enumerate(images)]
    return images, [AugmentationKey(f"sample {number}", number, 7) for number in range(len(images))], marks


@pytest.mark.parametrize("border", list(Border))
@pytest.mark.parametrize("mode", list(Mode))
def test_a_batch_of_any_images_is_what_each_would_be_alone(mode: Mode, border: Border) -> None:
    images, keys, marks = mixture()
    policy = Policy(MANY.steps, mode=mode)
    alone = [augment(image, policy, key, mark, border=border) for image, key, mark in zip(images, keys, marks, strict=True)]
    for batch in (
        augment_batch(images, policy, keys, marks, engine="cpu", border=border),
        augment_batch(images, policy, keys, marks, engine="auto", device="cpu", border=border),
    ):
        for one, other in zip(alone, batch, strict=True):
            same_but_pixels(one, other)
            np.testing.assert_array_equal(one.pixels, other.pixels)
            assert one.pixels.dtype == other.pixels.dtype
    kept = [image.copy() for image in images]
    for one, other, image in zip(
        alone, augment_batch(images, policy, keys, marks, engine="gpu", device=DEVICE, border=border), images, strict=True
    ):
        same_but_pixels(one, other)
        # JPEG's blocks and the steps of hue tell small differences apart; what was drawn is told apart by much more.
        assert not apart(one.pixels, other.pixels, FULL[image.dtype.name], Bound(1.0, 16.0, 0.002)), one.drawn
        assert not np.shares_memory(other.pixels, image)
    for image, before in zip(images, kept, strict=True):
        np.testing.assert_array_equal(image, before)


def test_the_first_engines_own_steps_get_what_they_need_within_a_batch() -> None:
    images, marks = [picture("uint8", 3, number) for number in range(3)], [marked(number) for number in range(3)]
    keys = [AugmentationKey(str(number)) for number in range(3)]
    policy = Policy((Step("Affine"), Step("BackgroundReplacement"), Step("BilateralBlur"), Step("HorizontalFlip")))
    first = augment_batch(images, policy, keys, marks, engine="cpu", border=Border.CONSTANT)
    second = augment_batch(images, policy, keys, marks, engine="gpu", device=DEVICE, border=Border.CONSTANT)
    for one, other, image in zip(first, second, images, strict=True):
        same_but_pixels(one, other)
        assert one.steps == (0, 1, 2, 3)
        assert not apart(one.pixels, other.pixels, 255, Bound(1.0, 16.0, 0.002))
        assert apart(one.pixels, np.ascontiguousarray(image[:, ::-1]), 255, Bound(1.0, 16.0, 0.002))


def test_images_of_few_bits_keep_them() -> None:
    images = [(picture("uint16", 1, number) >> 4).astype(np.uint16) for number in range(3)]
    keys = [AugmentationKey(str(number)) for number in range(3)]
    policy = Policy((Step("RandomBrightnessContrast", {"brightness_limit": [0.1, 0.3]}), Step("Affine")))
    first = augment_batch(images, policy, keys, engine="cpu", bit_depth=12)
    for one, other in zip(first, augment_batch(images, policy, keys, engine="gpu", device=DEVICE, bit_depth=12), strict=True):
        assert not apart(one.pixels, other.pixels, 4095, AGREEMENT["Affine"].bound("uint16"))
        assert other.pixels.max() <= 4095


def test_a_step_that_is_not_taken_leaves_a_copy_of_the_image() -> None:
    image = picture("uint8", 3, 0)
    (out,) = augment_batch([image], Policy((Step("HorizontalFlip", probability=0.0),)), [AugmentationKey("a")], engine="gpu", device=DEVICE)
    np.testing.assert_array_equal(out.pixels, image)
    assert not np.shares_memory(out.pixels, image)
    assert augment_batch([], default_policy(), [], engine="gpu", device=DEVICE) == []


def test_kernels_larger_than_an_image_go_to_the_first_engine() -> None:
    image = picture("uint8", 3, 0, 40, 44)
    policy, key = Policy((Step("Blur", {"blur_limit": [99, 99]}),)), AugmentationKey("a")
    (out,) = augment_batch([image], policy, [key], engine="gpu", device=DEVICE)
    np.testing.assert_array_equal(out.pixels, augment(image, policy, key).pixels)


def test_engines_are_chosen_by_transform_size_and_device() -> None:
    large, side = (1024, 1024, 3), 256
    assert choose_engine(CATALOGUE["Affine"], large, 8, "cuda") == "gpu"
    assert choose_engine(CATALOGUE["Affine"], large, 8, "cuda:1") == "gpu"
    assert choose_engine(CATALOGUE["Affine"], large, 8, "cpu") == "cpu"
    assert choose_engine(CATALOGUE["ImageCompression"], large, 8, "cuda") == "cpu"
    few = LEAST_PIXELS // side**2
    assert choose_engine(CATALOGUE["Affine"], (side, side, 1), few, "cuda") == "gpu"
    assert choose_engine(CATALOGUE["Affine"], (side, side, 1), few - 1, "cuda") == "cpu"


def test_a_batch_that_does_not_fit_is_refused_by_name() -> None:
    image, key, policy = picture("uint8", 3, 0), AugmentationKey("a"), default_policy()
    for call, reason in (
        (partial(augment_batch, [image], policy, [key], engine="tpu"), "UNKNOWN_ENGINE"),
        (partial(augment_batch, [image], policy, []), "BATCH_SIZE_MISMATCH"),
        (partial(augment_batch, [image], policy, [key], []), "BATCH_SIZE_MISMATCH"),
        (partial(augment_batch, [image], Policy((Step("ToGray"),)), [key], engine="gpu", device=DEVICE), ""),
        (partial(augment_batch, [image[:, :, :1]], Policy((Step("ToGray"),)), [key], engine="gpu", device=DEVICE), "TRANSFORM_NOT_DEFINED"),
    ):
        if not reason:
            assert len(call()) == 1
            continue
        with pytest.raises(InvalidArgument) as caught:
            call()
        assert caught.value.reason == reason
    with pytest.raises(FailedPrecondition) as missing:
        augment_batch([image], policy, [key], engine="gpu", device="cuda:99")
    assert missing.value.reason == "NO_SUCH_DEVICE"


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_presets_agree_on_real_images(preset: str, real_data: Path) -> None:
    folders = ("bccd/JPEGImages", "wbc_zheng/domain1/images", "dsb2018_nuclei_compact/color_HE/images", "isbi2012_em/train/image")
    images = []
    for folder in folders:
        for path in sorted((real_data / folder).iterdir())[:3]:
            pixels = cv2.imread(str(path), cv2.IMREAD_COLOR)
            assert pixels is not None, path
            images.append(np.ascontiguousarray(pixels[:320, :320, ::-1]))
    assert len(images) == 3 * len(folders)
    # A slice of one channel, in 16 bits.
    images += [image[:, :, :1].astype(np.uint16) * 257 for image in images[-3:]]
    policy = preset_policy(preset, "classification")
    keys = [AugmentationKey(str(number), seed=3) for number in range(len(images))]
    first = augment_batch(images, policy, keys, engine="cpu")
    for one, other, image in zip(first, augment_batch(images, policy, keys, engine="gpu", device=DEVICE), images, strict=True):
        same_but_pixels(one, other)
        # Some steps, each within its bound; JPEG's blocks, speckle and stains make more of a small difference.
        pair, bound = [one.pixels, other.pixels], Bound(1.5, 20.0, 0.002)
        if any(step["transform"] == "LowDose" for step in one.drawn):
            # How many numbers a photon count takes from the generator depends on the pixel, so one grey level makes other noise of the
            # same strength. What is under it is the same.
            assert np.std(pair[0].astype(np.float64) - cv2.blur(pair[0], (5, 5)).reshape(pair[0].shape)) == pytest.approx(
                np.std(pair[1].astype(np.float64) - cv2.blur(pair[1], (5, 5)).reshape(pair[1].shape)), rel=0.03
            )
            pair = [cv2.blur(pixels, (31, 31)).reshape(pixels.shape) for pixels in pair]
        assert not apart(pair[0], pair[1], FULL[image.dtype.name], bound), one.drawn


def test_torch_is_loaded_by_who_needs_it() -> None:
    code = (
        "import sys; import oteo_core.augmentation, oteo_core.augmentation.batches;"
        "assert not {'torch', 'kornia', 'albumentations'} & set(sys.modules);"
        "sys.modules['kornia'] = None;"
        "from oteo_core.augmentation.engines.gpu import KorniaEngine;"
        "from oteo_core.errors import FailedPrecondition\n"
        "try: KorniaEngine()\n"
        "except FailedPrecondition as error: print(error.reason, 'kornia' in error.message)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["ENGINE_NOT_INSTALLED", "True"]
