"""Augmentation of images: the same draw wherever it is made, labels' meaning kept, all pixel types kept."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from oteo_core.augmentation import (
    CATALOGUE,
    AugmentationKey,
    Border,
    Mode,
    Policy,
    Step,
    augment,
    augment_image,
    default_policy,
    preset_policy,
)
from oteo_core.errors import InvalidArgument
from oteo_core.images import pixel_digest


def picture(dtype: str = "uint8", channels: int = 3, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).random((40, 56, channels))
    return (values * {"uint8": 255, "uint16": 65535, "float32": 1}[dtype]).astype(dtype)


def test_a_copy_depends_on_its_key_alone():
    policy = default_policy()
    keys = [AugmentationKey(f"sample{i}", copy) for i in range(4) for copy in range(3)]
    images = {f"sample{i}": picture(seed=i) for i in range(4)}
    forward = {k: pixel_digest(augment_image(images[k.sample], policy, k)) for k in keys}
    with ThreadPoolExecutor(4) as threads:
        threaded = dict(zip(keys, threads.map(lambda k: pixel_digest(augment_image(images[k.sample], policy, k)), keys), strict=True))
    backward = {k: pixel_digest(augment_image(images[k.sample], policy, k)) for k in reversed(keys)}
    assert forward == backward == threaded
    assert len(set(forward.values())) == len(keys)
    other = AugmentationKey("sample0", 0, seed=1)
    assert pixel_digest(augment_image(images["sample0"], policy, other)) != forward[AugmentationKey("sample0", 0)]


def test_another_process_draws_the_same():
    code = (
        "import numpy as np; from oteo_core.augmentation import *; from oteo_core.images import pixel_digest;"
        "x = (np.arange(40*40*3) % 251).reshape(40, 40, 3).astype('uint8');"
        "print(pixel_digest(augment_image(x, default_policy(), AugmentationKey('a', 3, 5))))"
    )
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()
    here = (np.arange(40 * 40 * 3) % 251).reshape(40, 40, 3).astype("uint8")
    assert told == pixel_digest(augment_image(here, default_policy(), AugmentationKey("a", 3, 5)))


def test_geometry_moves_all_channels_alike():
    one = picture("uint16", 1)
    many = np.repeat(one, 7, axis=2)
    out = augment_image(many, Policy((Step("Affine", {"rotate": [-40.0, 40.0]}), Step("D4"))), AugmentationKey("s"))
    np.testing.assert_array_equal(out, np.repeat(out[:, :, :1], 7, axis=2))


def test_sixteen_bits_stay_sixteen_bits():
    out = augment_image(picture("uint16", 1), Policy((Step("RandomGamma"),)), AugmentationKey("s"))
    assert len(np.unique(out)) > 1500


@pytest.mark.parametrize(
    "step",
    [
        Step("Affine", {"rotate": [0.0, 0.0], "scale": [1.0, 1.0], "translate_percent": [0.0, 0.0]}),
        Step("RandomBrightnessContrast", {"brightness_limit": [0.0, 0.0], "contrast_limit": [0.0, 0.0]}),
        Step("RandomGamma", {"gamma_limit": [100.0, 100.0]}),
        Step("GaussNoise", {"std_range": [0.0, 0.0]}),
        Step("HorizontalFlip", probability=0.0),
    ],
)
def test_no_strength_changes_nothing(step):
    np.testing.assert_array_equal(augment_image(picture(), Policy((step,)), AugmentationKey("s")), picture())


def test_nothing_mirrors_where_sides_mean_something():
    for free in (False, True):
        policy = default_policy(laterality=True, orientation_free=free)
        assert not any(CATALOGUE[step.transform].mirrors for step in policy.steps)
    with pytest.raises(InvalidArgument) as caught:
        Policy((Step("Affine"), Step("mirror")), laterality=True)
    assert (caught.value.reason, caught.value.field) == ("MIRROR_REFUSED", "policy.steps[1].transform")


@pytest.mark.parametrize(
    ("make", "reason", "field"),
    [
        (lambda: Policy((Step("Rotat"),)), "UNKNOWN_TRANSFORM", "policy.steps[0].transform"),
        (lambda: Policy((Step("Affine", {"rotation": 3}),)), "BAD_PARAMETER", "policy.steps[0].parameters.rotation"),
        (lambda: Policy((Step("Affine", probability=1.5),)), "BAD_POLICY", "policy.steps[0].probability"),
        (lambda: Policy((Step("D4", weight=-1.0),)), "BAD_POLICY", "policy.steps[0].weight"),
        (lambda: Policy((Step("D4", weight=0.0),), Mode.LINEAR), "BAD_POLICY", "policy.steps"),
        (lambda: preset_policy("h-and-i", "classification"), "UNKNOWN_PRESET", "policy.preset"),
        (lambda: default_policy("painting"), "TASK_NOT_SUPPORTED", "policy"),
        (
            lambda: augment_image(picture(), Policy((Step("GaussNoise", {"std_range": "much"}),)), AugmentationKey("s")),
            "BAD_PARAMETER",
            "policy.steps[0].parameters.std_range",
        ),
        (lambda: augment_image(picture().astype(int), Policy((Step("D4"),)), AugmentationKey("s")), "UNSUPPORTED_PIXELS", None),
    ],
)
def test_what_is_wrong_is_told(make, reason, field):
    with pytest.raises(InvalidArgument) as caught:
        make()
    assert (caught.value.reason, caught.value.field) == (reason, field)


def test_linear_takes_one_step_by_weight():
    policy = Policy((Step("HorizontalFlip", weight=3.0), Step("VerticalFlip", weight=1.0)), Mode.LINEAR)
    image = picture()
    results = [augment_image(image, policy, AugmentationKey("s", copy)) for copy in range(200)]
    across = sum(np.array_equal(r, image[:, ::-1]) for r in results)
    down = sum(np.array_equal(r, image[::-1]) for r in results)
    assert across + down == 200
    assert 120 < across < 180


def test_brightness_beyond_the_range_is_refused_or_left_out():
    raw = picture("float32", 3) * 900 - 100
    with pytest.raises(InvalidArgument, match="0 to 1"):
        augment_image(raw, Policy((Step("RandomGamma"),)), AugmentationKey("s"))
    out = augment_image(raw, default_policy(), AugmentationKey("s"))
    assert out.max() > 500
    raw[3, 4, 1] = np.nan
    with pytest.raises(InvalidArgument, match="finite"):
        augment_image(raw, Policy((Step("Affine"),)), AugmentationKey("s"))
    flipped = augment_image(raw, Policy((Step("HorizontalFlip"),)), AugmentationKey("s"))
    np.testing.assert_array_equal(flipped, raw[:, ::-1])


def test_the_digest_tells_policies_apart_and_nothing_else():
    one = Policy((Step("Affine", {"rotate": (-10, 10)}),), name="a")
    assert one.digest == Policy((Step("Affine", {"rotate": [-10.0, 10.0]}),), name="b").digest
    assert one.digest != Policy((Step("Affine", {"rotate": (-11, 10)}),)).digest
    assert one.digest != Policy((Step("Affine", {"rotate": (-10, 10)}, 0.5),)).digest
    assert Policy.from_json(default_policy().to_json()).digest == default_policy().digest


def test_importing_it_is_cheap():
    code = "import sys, oteo_core.augmentation; sys.exit('albumentations' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    "step", [Step("CenterCrop"), Step("RandomCropFromBorders", {"share": [0, 0]}), Step("NoOp"), Step("MedianBlur", {"kernel": [1, 1]})]
)
def test_a_step_that_changes_nothing_gives_a_copy(step):
    image = picture()
    out = augment_image(image, Policy((step,)), AugmentationKey("a"))
    np.testing.assert_array_equal(out, image)
    assert not np.shares_memory(out, image)
    assert out.flags.c_contiguous


def test_an_image_of_one_row_stays_one_without_colour():
    # albumentations gives a column.
    row = picture()[:1]
    out = augment_image(np.ascontiguousarray(row), Policy((Step("ToGray"),)), AugmentationKey("a"))
    assert out.shape == row.shape
    assert abs(int(out[0, 3, 0]) - float(row[0, 3] @ [0.299, 0.587, 0.114])) < 1


def test_what_is_told_of_a_draw_does_not_depend_on_what_was_drawn_before() -> None:
    """A step that brings in the colour of one image's edge leaves no trace of it in another's provenance."""
    policy = Policy((Step("Affine"),))
    image = np.full((24, 24, 3), 200, np.uint8)
    key = AugmentationKey("s")
    before = augment(image, policy, key, border=Border.REFLECT).drawn
    augment(np.full((24, 24, 3), 90, np.uint8), policy, AugmentationKey("t"), border=Border.CONSTANT)
    assert augment(image, policy, key, border=Border.REFLECT).drawn == before


@pytest.mark.parametrize("name", sorted(spec.name for spec in CATALOGUE.values() if spec.in_float))
@pytest.mark.parametrize("channels", [1, 3, 7])
def test_what_goes_by_a_table_is_what_floating_point_gives(name: str, channels: int) -> None:
    rng = np.random.default_rng(3)
    pixels = rng.integers(0, 256, (37, 41, channels), dtype=np.uint8)
    policy = Policy((Step(name, {}, 1.0),))
    differences = 0
    for key in (AugmentationKey("a", copy) for copy in range(8)):
        changed = augment_image(pixels, policy, key)
        exact = augment_image(pixels.astype(np.float32) / 255, policy, key) * 255
        np.testing.assert_array_equal(changed, np.rint(exact).astype(np.uint8))
        differences += not np.array_equal(changed, pixels)
    assert differences > 4


def test_augmenting_does_not_load_pytorch_and_leaves_it_to_others():
    pytest.importorskip("torch", reason="PyTorch is not installed, so nothing could load it")
    code = (
        "import numpy as np, sys; from oteo_core.augmentation import *;"
        "augment_image(np.zeros((40, 40, 3), 'uint8'), default_policy(), AugmentationKey('a'));"
        "print('torch' in sys.modules);"
        "from albumentations.pytorch import ToTensorV2; print(ToTensorV2.__name__)"
    )
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert told == ["False", "ToTensorV2"]
