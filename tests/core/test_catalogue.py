"""The catalogue: every transform does what it says of itself, refuses what it says, and its annotations go with its pixels."""

from __future__ import annotations

import random
from functools import cache

import cv2
import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from oteo_core.augmentation import CATALOGUE, AugmentationKey, Policy, Step, TransformSpec, augment_image, find_transform, refusal
from oteo_core.augmentation import catalogue_page as pages
from oteo_core.augmentation.catalogue.parameters import Kind, Parameter
from oteo_core.errors import InvalidArgument

TYPES = ("uint8", "uint16", "float32")
FULL = {"uint8": 255, "uint16": 65535, "float32": 1}
EVERY = sorted(CATALOGUE)
GEOMETRIC = sorted(name for name, spec in CATALOGUE.items() if spec.geometric)
SMALL = {"height": 20, "width": 24, "max_size": 24}
CLODSA = [
    "average_blurring",
    "bilateral_blurring",
    "blurring",
    "change_to_hsv",
    "change_to_lab",
    "crop",
    "cropSize",
    "dropout",
    "elastic",
    "equalize_histogram",
    "flip",
    "gamma",
    "gaussian_blur",
    "gaussian_noise",
    "invert",
    "median_blur",
    "none",
    "raise_blue",
    "raise_green",
    "raise_hue",
    "raise_red",
    "raise_saturation",
    "raise_value",
    "resize",
    "rotate",
    "salt_and_pepper",
    "sharpen",
    "shift_channel",
    "shearing",
    "translation",
]


@cache
def picture(dtype: str = "uint8", channels: int = 3) -> np.ndarray:
    coarse = np.random.default_rng(3).random((7, 9, 7), np.float32)
    smooth = np.stack([cv2.resize(coarse[:, :, i], (40, 32), interpolation=cv2.INTER_LINEAR) for i in range(channels)], axis=2)
    return np.ascontiguousarray((smooth * FULL[dtype]).astype(dtype))


def step(name: str, **parameters: object) -> Step:
    fitting = {key: value for key, value in SMALL.items() if key in CATALOGUE[name].options}
    return Step(name, {**fitting, **parameters})


def augmented(image: np.ndarray, one: Step, copy: int = 0) -> np.ndarray:
    return augment_image(image, Policy((one,)), AugmentationKey("sample", copy))


@pytest.mark.parametrize("name", EVERY)
def test_type_channels_and_range_are_kept_or_the_reason_is_told(name):
    for dtype in TYPES:
        for channels in (1, 2, 3, 4, 7):
            image = picture(dtype, channels)
            before = image.copy()
            why = refusal(step(name), image)
            assert why == CATALOGUE[name].refusal(dtype, channels)
            if why:
                with pytest.raises(InvalidArgument) as caught:
                    augmented(image, step(name))
                assert (caught.value.reason, caught.value.message) == ("TRANSFORM_NOT_DEFINED", why)
                continue
            out = augmented(image, step(name))
            assert out.dtype == image.dtype, (dtype, channels)
            assert out.shape[2] == channels
            if not CATALOGUE[name].resizes:
                assert sorted(out.shape[:2]) == sorted(image.shape[:2])
            assert not np.shares_memory(out, image)
            np.testing.assert_array_equal(image, before)
            assert out.min() >= 0
            assert out.max() <= FULL[dtype]


@pytest.mark.parametrize("name", EVERY)
def test_no_cast_to_eight_bits(name):
    for dtype in ("uint16", "float32"):
        if CATALOGUE[name].refusal(dtype, 3):
            continue
        out = augmented(picture(dtype, 3), step(name))
        if name != "Erasing":  # the one that may leave as few pixels
            assert len(np.unique(out)) > 300, dtype


@pytest.mark.parametrize("name", EVERY)
def test_a_draw_depends_on_its_key_alone(name):
    image = picture("uint8" if "uint8" in CATALOGUE[name].pixel_types else "float32")
    first = [augmented(image, step(name), copy) for copy in range(3)]
    for copy in (2, 0, 1):
        np.testing.assert_array_equal(augmented(image, step(name), copy), first[copy])


@pytest.mark.parametrize("name", [name for name in EVERY if CATALOGUE[name].neutral])
def test_no_strength_changes_nothing(name):
    for dtype in CATALOGUE[name].pixel_types:
        image = picture(dtype, 3)
        np.testing.assert_array_equal(augmented(image, step(name, **CATALOGUE[name].neutral)), image)


def test_a_strength_changes_something():
    still = set()
    for name, spec in CATALOGUE.items():
        image = picture(spec.pixel_types[0])
        if all(np.array_equal(augmented(image, step(name), copy), image) for copy in range(8)):
            still.add(name)
    # What needs objects has nothing to do where there are none; test_background.py gives it some.
    assert still == {"NoOp", *(name for name, spec in CATALOGUE.items() if spec.needs_objects)}


@pytest.mark.parametrize("name", EVERY)
def test_floating_point_beyond_the_range_is_kept_or_refused(name):
    spec = CATALOGUE[name]
    if "float32" not in spec.pixel_types:
        pytest.skip("not defined for floating point, which another test shows")
    raw = picture("float32") * 900 - 100
    hole = raw.copy()
    hole[5, 6, 1] = np.nan
    hole[9, 9, 0] = np.inf
    if refusal(step(name), raw):
        assert spec.unit_range
    else:
        out = augmented(raw, step(name))
        assert np.isfinite(out).all()
        assert raw.min() - 0.01 <= out.min()
        assert out.max() <= raw.max() + 0.01
    if refusal(step(name), hole):
        with pytest.raises(InvalidArgument, match=r"finite|0 to 1|channels"):
            augmented(hole, step(name))
    elif not spec.geometric:
        out = augmented(hole, step(name))
        np.testing.assert_array_equal(np.isfinite(out), np.isfinite(hole))


@pytest.mark.parametrize("shape", [(1, 1), (1, 17), (3, 2)])
def test_tiny_images_come_back_or_are_refused_in_words(shape):
    for name, spec in CATALOGUE.items():
        for dtype in spec.pixel_types:
            image = np.ascontiguousarray(picture(dtype)[: shape[0], : shape[1]])
            try:
                out = augmented(image, step(name))
            except InvalidArgument:
                continue
            assert out.dtype == image.dtype, name
            assert 0 not in out.shape, name


def blobs(height: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Give an image of bright dots, a label image of discs under them, and their middles."""
    y, x = np.mgrid[:height, :width]
    middles = np.array([(i, j) for i in range(20, width - 12, 24) for j in range(20, height - 12, 24)], float)
    image, labels = np.zeros((height, width), np.float32), np.zeros((height, width), np.uint8)
    for number, (i, j) in enumerate(middles, 1):
        squared = (x - i) ** 2 + (y - j) ** 2
        image = np.maximum(image, np.exp(-squared / 8).astype(np.float32))
        labels[squared <= 49] = number
    return image[:, :, None], labels, middles


@pytest.mark.parametrize("name", GEOMETRIC)
def test_masks_and_points_stay_on_their_pixels_to_half_a_pixel(name):
    height, width = 128, 120
    image, labels, middles = blobs(height, width)
    spec = CATALOGUE[name]
    aside = []
    for seed in range(4):
        transform = spec.build({key: 100 for key in SMALL if key in spec.options})
        if hasattr(transform, "border_mode"):
            transform.border_mode = 0
        transform.set_random_state(np.random.default_rng(seed), random.Random(seed))
        moved = np.asarray(transform(image=image)["image"]).squeeze()
        drawn = transform.get_applied_params()
        points = np.zeros((len(middles), 5), np.float32)
        points[:, :2], points[:, 4] = middles, 1
        places = np.asarray(transform.apply_to_keypoints(points, **drawn))[:, :2]
        angles = np.linspace(0, 2 * np.pi, 90, endpoint=False)
        circles = np.zeros((len(middles) * 90, 5), np.float32)
        circles[:, :2] = (middles[:, None] + 7 * np.stack([np.cos(angles), np.sin(angles)], axis=1)).reshape(-1, 2)
        circles[:, 4] = 1
        rings = np.asarray(transform.apply_to_keypoints(circles, **drawn), np.float64)[:, :2].reshape(-1, 90, 2)
        mask = np.asarray(transform.apply_to_mask(labels, **drawn))
        assert mask.shape == moved.shape
        assert set(np.unique(mask)) <= set(np.unique(labels))
        assert len(places) == len(middles)
        for number, (x, y) in enumerate(places, 1):
            if not (12 < x < moved.shape[1] - 12 and 12 < y < moved.shape[0] - 12):
                continue
            left, top = round(float(x)) - 7, round(float(y)) - 7
            part = moved[top : top + 15, left : left + 15] ** 2
            down, across = np.mgrid[top : top + 15, left : left + 15]
            assert np.hypot((part * across).sum() / part.sum() - x, (part * down).sum() / part.sum() - y) < 0.5
            rows, columns = np.nonzero(mask == number)
            # A disc that is bent has another middle than its dot, and its points another mean than its area: that of its outline counts.
            middle = np.asarray(shapely.Polygon(rings[number - 1]).centroid.coords[0])
            aside.append((columns.mean() - middle[0], rows.mean() - middle[1]))
    # Each number is that of the nearest pixel, half a pixel off along each axis at most; a draw to one side shows in all discs.
    assert len(aside) > 10
    assert np.abs(aside).max() < 0.5
    assert np.hypot(*np.mean(aside, axis=0)) < 0.35


@pytest.mark.parametrize("name", GEOMETRIC)
def test_a_chessboard_in_image_and_mask_stays_one(name):
    y, x = np.mgrid[:128, :120]
    board = ((x // 12 + y // 12) % 2).astype(np.uint8)
    for seed in range(4):
        transform = CATALOGUE[name].build({key: 100 for key in SMALL if key in CATALOGUE[name].options})
        transform.set_random_state(np.random.default_rng(seed), random.Random(seed))
        moved = np.asarray(transform(image=board[:, :, None].astype(np.float32))["image"]).squeeze()
        mask = np.asarray(transform.apply_to_mask(board, **transform.get_applied_params()))
        # Where the image is plainly black or white the mask must be, too: half a pixel from an edge it is.
        assert np.array_equal(mask[moved > 0.76], np.ones(np.count_nonzero(moved > 0.76)))
        assert not mask[moved < 0.24].any()
        assert np.mean((moved > 0.5) != mask) < 0.02


@pytest.mark.parametrize("name", GEOMETRIC)
def test_what_mirrors_says_so(name):
    image = np.zeros((40, 40, 1), np.uint8)
    image[8:32, 8:12], image[8:12, 8:28] = 255, 255  # an L: turned it is itself, mirrored it never is
    turned = False
    for copy in range(24):
        spec = CATALOGUE[name]
        transform = spec.build({key: 36 for key in SMALL if key in spec.options})
        transform.set_random_state(np.random.default_rng(copy), random.Random(copy))
        transform(image=image)
        corners = np.zeros((3, 5), np.float32)
        corners[:, :2], corners[:, 4] = [(10, 10), (26, 10), (10, 30)], 1
        if hasattr(transform, "border_mode"):
            transform.border_mode = 0
        a, b, c = np.asarray(transform.apply_to_keypoints(corners, **transform.get_applied_params()))[:, :2]
        turned |= float(np.cross(b - a, c - a)) < 0
    assert turned == (spec.mirrors)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_values_within_the_bounds_are_taken_and_others_refused_by_name(data):
    spec = CATALOGUE[data.draw(st.sampled_from([name for name in EVERY if CATALOGUE[name].options]))]
    name = data.draw(st.sampled_from(sorted(spec.options)))
    parameter = spec.options[name]
    for wrong in wrong_values(parameter):
        with pytest.raises(InvalidArgument) as caught:
            spec.build({name: wrong})
        assert (caught.value.reason, caught.value.field) == ("BAD_PARAMETER", f"parameters.{name}"), wrong
        assert spec.name in caught.value.message
    default = list(parameter.default) if isinstance(parameter.default, tuple) else parameter.default
    assert spec.checked({name: default}) == spec.parameters
    spec.build({name: default})


def wrong_values(parameter: Parameter) -> list[object]:
    wrong: list[object] = [None, {}, "loud", [1], [1, 2, 3], float("nan"), [0.0, float("inf")]]
    if parameter.kind is Kind.FLAG:
        return [*wrong, 1]
    if parameter.kind is Kind.CHOICE:
        return wrong
    pair = parameter.kind in (Kind.RANGE, Kind.INTEGER_RANGE, Kind.INTEGER_PAIR)
    for bound, beyond in ((parameter.minimum, -1), (parameter.maximum, 1)):
        if bound is not None:
            wrong.append([bound + beyond, bound + beyond] if pair else bound + beyond)
    if parameter.kind in (Kind.RANGE, Kind.INTEGER_RANGE):
        wrong.append(list(reversed(parameter.default)) if parameter.default[0] != parameter.default[1] else "first")
    if parameter.kind in (Kind.INTEGER, Kind.INTEGER_RANGE):
        wrong.append([3.5, 3.5] if pair else 3.5)
    return [*wrong, True]


def test_bounds_themselves_can_be_built():
    for spec in CATALOGUE.values():
        for name, parameter in spec.options.items():
            for bound in (parameter.minimum, parameter.maximum):
                if bound is None:
                    continue
                pair = parameter.kind in (Kind.RANGE, Kind.INTEGER_RANGE, Kind.INTEGER_PAIR)
                if spec.name == "PlanckianJitter":  # white must lie within, which the schema cannot say
                    with pytest.raises(InvalidArgument, match="White"):
                        spec.build({name: [bound, bound]})
                    continue
                spec.build({name: [bound, bound] if pair else bound})


def test_clodsas_names_are_known():
    assert len(CLODSA) == 30
    for name in (*CLODSA, "crop_size", "equalize histogram"):
        assert isinstance(find_transform(name), TransformSpec)


def test_names_are_one_transforms_alone():
    names = [name for spec in CATALOGUE.values() for name in (spec.name, *spec.aliases)]
    assert len(names) == len(set(names))


def test_schemas_hold_their_defaults():
    import jsonschema

    for spec in CATALOGUE.values():
        schema = spec.schema()
        jsonschema.Draft202012Validator.check_schema(schema)
        defaults = {name: one["default"] for name, one in schema["properties"].items()}
        jsonschema.validate(defaults, schema)
        assert spec.checked(defaults) == spec.parameters


def test_raise_red_raises_red_alone():
    out = augmented(picture(), Step("raise_red")).astype(int) - picture()
    assert out[:, :, 0].min() >= 0
    assert out[:, :, 0].max() > 4
    assert not out[:, :, 1:].any()


def test_stain_jitter_leaves_white_white_and_scales_density():
    white = np.full((4, 4, 3), 255, np.uint8)
    np.testing.assert_array_equal(augmented(white, Step("StainJitter", {"shift": [0, 0]})), white)
    density = np.array([[0.65, 0.70, 0.29]]) / np.linalg.norm([0.65, 0.70, 0.29]) * 0.5
    stained = np.broadcast_to(10**-density, (4, 4, 3)).astype(np.float32)
    twice = augmented(np.ascontiguousarray(stained), Step("StainJitter", {"scale": [2, 2], "shift": [0, 0]}))
    np.testing.assert_allclose(twice, stained**2, rtol=1e-4)


def test_rician_noise_has_its_mean_and_low_dose_its_variance():
    dark = np.zeros((200, 200, 1), np.float32)
    noisy = augmented(dark, Step("RicianNoise", {"std": [0.05, 0.05]}))
    assert noisy.mean() == pytest.approx(0.05 * np.sqrt(np.pi / 2), rel=0.02)  # of a Rayleigh distribution
    grey = np.full((200, 200, 1), 0.5, np.float32)
    dosed = augmented(grey, Step("LowDose", {"dose": [0.25, 0.25], "photons": 1000}))
    assert dosed.mean() == pytest.approx(0.5, abs=0.001)
    assert dosed.var() == pytest.approx(0.5 * 0.75 / (0.25 * 1000), rel=0.05)


def test_hounsfield_gamma_leaves_what_is_outside_its_window():
    units = np.linspace(-1000, 1000, 2001, dtype=np.float32).reshape(1, -1, 1)
    units[0, 0, 0] = np.nan
    out = augmented(units, Step("HounsfieldGamma", {"gamma": [0.5, 0.5], "window": "soft_tissue"}))
    outside = ~((units > -160) & (units < 240))
    np.testing.assert_array_equal(out[outside], units[outside])
    assert (np.diff(out[0, 1:, 0]) > 0).all()
    assert out[0, 1040, 0] == pytest.approx(-160 + 400 * np.sqrt(0.5), abs=0.1)


def test_defocus_spreads_a_point_evenly_over_its_disc():
    point = np.zeros((21, 21, 1), np.float32)
    point[10, 10] = 1
    out = augmented(point, Step("defocus", {"radius": [4, 4]}))
    assert out.sum() == pytest.approx(1, abs=1e-4)
    assert out.max() == pytest.approx(1 / (np.pi * 16), rel=0.02)
    assert out[10, 15] == 0
    assert out[10, 13] == out.max()


def test_vignette_loses_at_the_farthest_corner_what_was_asked():
    white = np.ones((41, 61, 1), np.float32)
    out = augmented(white, Step("Vignette", {"strength": [0.3, 0.3], "offset": [0, 0]}))
    assert out[0, 0] == pytest.approx(0.7, abs=0.02)
    assert out[20, 30] == pytest.approx(1, abs=0.001)


def test_the_page_is_that_of_the_catalogue(repository):
    docs = repository / "docs"
    assert (docs / pages.PAGE).read_text(encoding="utf-8") == pages.page(), "run python -m oteo_core.augmentation.catalogue_page docs"
    folder = docs / pages.FOLDER
    assert {path.stem for path in folder.iterdir()} == set(CATALOGUE)
    for path in folder.iterdir():
        assert path.stat().st_size < 12_000
        stored = cv2.imread(str(path)).astype(int)
        drawn = pages.picture(CATALOGUE[path.stem])
        # JPEG changes single pixels; another transform or draw would change many.
        assert np.abs(cv2.GaussianBlur(stored - drawn.astype(float), (0, 0), 2)).mean() < 3, path.name
