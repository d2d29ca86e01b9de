"""A 12-bit detector's images in 16-bit files keep their contrast: in augmentation, in a model's input, and over a whole dataset."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oteo_core.augmentation import CATALOGUE, PRESETS, AugmentationKey, Policy, Step, augment_image, default_policy, preset_policy
from oteo_core.augmentation.applying import augment, refusal
from oteo_core.images import InputPolicy, prepare, significant_bits
from oteo_core.images.depth import emptied, filled

DARK, BRIGHT = 127, 2145


def _picture(height: int = 64, width: int = 72, channels: int = 1) -> np.ndarray:
    """Draw blobs of 127 to 2145: what a 12-bit detector gives, a thirtieth of what 16 bits hold."""
    rows, columns = np.mgrid[0:height, 0:width]
    waves = np.sin(rows / 7) * np.cos(columns / 9) + 0.3 * np.sin((rows + 2 * columns) / 4)
    share = (waves - waves.min()) / np.ptp(waves)
    picture = np.rint(DARK + share * (BRIGHT - DARK)).astype(np.uint16)
    return np.ascontiguousarray(np.repeat(picture[:, :, None], channels, axis=2))


def _likeness(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.corrcoef(one.astype(float).ravel(), other.astype(float).ravel())[0, 1])


@given(st.integers(1, 15), st.data())
def test_every_value_comes_back(bits, data):
    value = data.draw(st.integers(0, (1 << bits) - 1))
    pixels = np.array([0, value, (1 << bits) - 1], np.uint16)
    stretched = filled(pixels, bits)
    assert stretched[0] == 0
    assert stretched[-1] == 65535
    assert emptied(stretched, bits).tolist() == pixels.tolist()


def test_depth_is_read_from_pixels_unless_the_file_declares_it():
    assert significant_bits(np.array([255], np.uint8)) == 8
    assert significant_bits(np.array([4095], np.uint16)) == 12
    assert significant_bits(np.array([4096], np.uint16)) == 14
    assert significant_bits(np.array([900], np.uint16), declared=12) == 12
    assert significant_bits(np.array([5000], np.uint16), declared=12) == 14, "a header that its own pixels refute"
    assert significant_bits(np.array([0.5], np.float32)) == 0


@pytest.mark.parametrize(
    "name", ["RandomBrightnessContrast", "GaussNoise", "RandomGamma", "InvertImg", "RicianNoise", "KSpaceSpikes", "PixelDropout"]
)
def test_strength_is_that_of_the_same_picture_in_eight_bits(name):
    """What a step does to 12 bits is what it does to the same picture in 8, but for the finer steps."""
    deep = _picture()
    shallow = np.rint(deep / 4095 * 255).astype(np.uint8)
    for copy in range(6):
        policy, key = Policy((Step(name),)), AugmentationKey("picture", copy)
        strong = augment(deep, policy, key, bit_depth=12).pixels.astype(float) / 4095
        expected = augment(shallow, policy, key).pixels.astype(float) / 255
        assert strong.max() <= 1
        assert abs(strong.mean() - expected.mean()) < 0.03
        assert abs(strong.std() - expected.std()) < 0.03


@pytest.mark.parametrize("spec", CATALOGUE.values(), ids=lambda spec: spec.name)
def test_no_transform_leaves_the_range(spec):
    pixels = _picture(channels=3)
    step = Step(spec.name)
    if refusal(step, pixels):
        assert not spec.refusal("uint8", 3) or spec.refusal("uint16", 3), "refused for its depth or channels, which the catalogue says"
        return
    for copy in range(3):
        changed = augment(pixels, Policy((step,)), AugmentationKey("picture", copy), bit_depth=12).pixels
        assert changed.dtype == np.uint16
        assert changed.max() <= 4095


def test_the_default_policy_blanks_no_copy():
    pixels = _picture()
    for copy in range(40):
        changed = augment_image(pixels, default_policy(), AugmentationKey("picture", copy))
        assert changed.max() <= 4095
        assert changed.std() > pixels.std() / 3, "the copy is all but blank"


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_no_preset_blanks_a_copy(preset):
    pixels = _picture(channels=3)
    for copy in range(10):
        changed = augment(pixels, preset_policy(preset, "classification"), AugmentationKey("picture", copy), bit_depth=12).pixels
        assert changed.max() <= 4095
        assert changed.std() > pixels.std() / 4


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_a_model_sees_the_whole_contrast(dtype):
    pixels = _picture()
    share = prepare(pixels, InputPolicy(72, 64, 1, dtype=dtype, bit_depth=12)).astype(float) / (255 if dtype == "uint8" else 1)
    assert np.abs(share - pixels / 4095).max() < 0.003
    own = prepare(pixels, InputPolicy(72, 64, 1, dtype=dtype))
    assert _likeness(own, pixels) > 0.999
    assert np.array_equal(own, prepare(pixels, InputPolicy(72, 64, 1, dtype=dtype), bit_depth=12))


def test_what_goes_beyond_the_models_depth_is_white():
    pixels = np.full((4, 4, 1), 60000, np.uint16)
    assert (prepare(pixels, InputPolicy(4, 4, 1, bit_depth=12)) == 255).all()
    assert (prepare(pixels, InputPolicy(4, 4, 1, dtype="float32", bit_depth=12)) == 1).all()


def test_the_full_range_is_what_it_was():
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256, 1)
    policy = InputPolicy(256, 256, 1, bit_depth=16)
    assert np.array_equal(prepare(values, policy), ((values.astype(np.uint32) + 128) // 257).astype(np.uint8))


def test_packages_from_before_the_depth_was_known_take_the_full_range():
    assert InputPolicy.from_dict({"width": 8, "height": 8}).bit_depth == 16
    assert InputPolicy.from_dict(InputPolicy(8, 8).to_dict()).bit_depth == 0
