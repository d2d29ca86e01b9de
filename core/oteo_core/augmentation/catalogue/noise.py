"""Transforms that add noise, compress, or take parts of the image away."""

from __future__ import annotations

from oteo_core.augmentation.catalogue.parameters import choice, number, span, whole_span
from oteo_core.augmentation.catalogue.spec import TransformSpec

_OWN = "oteo_core.augmentation.transforms"

NOISE = (
    TransformSpec(
        "GaussNoise",
        "Adds Gaussian noise, as a camera's electronics do.",
        {"std_range": span(0.01, 0.04, "Standard deviation of the noise", 0, 1, "share of the full range")},
        aliases=("gaussian_noise",),
        unit_range=True,
        neutral={"std_range": (0.0, 0.0)},
    ),
    TransformSpec(
        "LowDose",
        "Adds the noise of a part of the dose or the exposure: fewer photons.",
        {
            "dose": span(0.2, 0.7, "Share of the dose that is left; 1 changes nothing", 0.001, 1),
            "photons": number(2000, "Photons that a white pixel had", 1, 1e9),
        },
        aliases=("shot_noise",),
        unit_range=True,
        neutral={"dose": (1.0, 1.0)},
        factory=f"{_OWN}.low_dose:LowDose",
        source="Zeng et al., 2015",
    ),
    TransformSpec(
        "MultiplicativeNoise",
        "Multiplies each pixel by a draw of its own, as speckle in ultrasound does.",
        {"multiplier": span(0.92, 1.08, "The factor", 0, 3)},
        {"elementwise": True, "per_channel": False},
        aliases=("speckle",),
        unit_range=True,
        neutral={"multiplier": (1.0, 1.0)},
    ),
    TransformSpec(
        "SaltAndPepper",
        "Makes single pixels white or black, as a broken sensor does.",
        {"amount": span(0.001, 0.01, "Share of the pixels", 0, 1)},
        {"salt_vs_pepper": (0.4, 0.6)},
        aliases=("salt_and_pepper",),
        unit_range=True,
        neutral={"amount": (0.0, 0.0)},
    ),
    TransformSpec(
        "ISONoise",
        "Adds noise of colour and brightness, as a camera at high gain does.",
        {
            "color_shift": span(0.005, 0.02, "Standard deviation of the hue", 0, 1, "share of the colour circle"),
            "intensity": span(0.1, 0.4, "Strength of the noise", 0, 2),
        },
        channels=frozenset({3}),
        unit_range=True,
    ),
    TransformSpec(
        "ImageCompression",
        "Stores as JPEG and reads again.",
        {"quality_range": whole_span(50, 90, "Quality", 1, 100)},
        {"compression_type": "jpeg"},
        aliases=("jpeg",),
        pixel_types=("uint8",),
    ),
)

HOLES = (
    TransformSpec(
        "PixelDropout",
        "Makes single pixels black.",
        {"dropout_prob": number(0.02, "Share of the pixels", 0, 1)},
        {"per_channel": False, "drop_value": 0},
        aliases=("dropout",),
        mixes=True,
        neutral={"dropout_prob": 0.0},
    ),
    TransformSpec(
        "BackgroundReplacement",
        "Keeps the pixels of objects and puts another background behind them, so that a model cannot lean on it.",
        {
            "kind": choice("any", ("any", "even", "texture", "smeared"), "What the new background is; any: one is drawn"),
            "shift": span(-0.1, 0.1, "What each channel of it differs from the old one's median", -1, 1, "share of the full range"),
            "contrast": span(0.02, 0.08, "Standard deviation of the texture", 0, 1, "share of the full range"),
            "grain": span(0.02, 0.2, "Size of the texture's patches", 0.001, 1, "share of the smaller side"),
        },
        aliases=("background_replacement", "replace_background"),
        unit_range=True,
        needs_objects=True,
        factory="oteo_core.augmentation.transforms.background:BackgroundReplacement",
        source="Dvornik et al., 2018, on context; Knutsson and Westin, 1993, on the blur",
    ),
    TransformSpec(
        "CoarseDropout",
        "Makes a few boxes black, so that a model learns not to lean on one place.",
        {
            "num_holes_range": whole_span(1, 3, "Number of boxes", 1, 100),
            "hole_height_range": span(0.05, 0.15, "Height of a box", 0.001, 1, "share of the height"),
            "hole_width_range": span(0.05, 0.15, "Width of a box", 0.001, 1, "share of the width"),
        },
        {"fill": 0},
        aliases=("cutout",),
        mixes=True,
        source="DeVries and Taylor, 2017",
    ),
    TransformSpec(
        "Erasing",
        "Makes one box of drawn area and shape black.",
        {
            "scale": span(0.01, 0.08, "Area of the box", 0.001, 1, "share of the image"),
            "ratio": span(0.5, 2, "Width by height", 0.05, 20),
        },
        {"fill": 0},
        mixes=True,
        source="Zhong et al., 2020",
    ),
    TransformSpec(
        "GridDropout",
        "Makes boxes on a regular grid black.",
        {
            "ratio": number(0.3, "Side of a box, as a share of the grid's step", 0.01, 0.99),
        },
        {"fill": 0, "holes_number_xy": (6, 6), "random_offset": True},
        mixes=True,
        source="Chen et al., 2020",
    ),
)
