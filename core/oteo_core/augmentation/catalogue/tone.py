"""Transforms that change brightness, contrast and the grey curve."""

from __future__ import annotations

from oteo_core.augmentation.catalogue.parameters import choice, number, span, whole_pair
from oteo_core.augmentation.catalogue.spec import TransformSpec

_OWN = "oteo_core.augmentation.transforms"
_BLEND = span(0.1, 0.5, "Share of the changed image in the result", 0, 1)
_NO_BLEND = (0.0, 0.0)

TONE = (
    TransformSpec(
        "RandomBrightnessContrast",
        "Adds to the brightness and multiplies the contrast.",
        {
            "brightness_limit": span(-0.2, 0.2, "What is added", -1, 1, "share of the full range"),
            "contrast_limit": span(-0.2, 0.2, "Change of the contrast", -1, 4, "share"),
        },
        aliases=("brightness_contrast",),
        unit_range=True,
        neutral={"brightness_limit": (0.0, 0.0), "contrast_limit": (0.0, 0.0)},
    ),
    TransformSpec(
        "RandomGamma",
        "Bends the grey curve: raises pixels to a power.",
        {"gamma_limit": span(80, 120, "The power", 1, 1000, "percent")},
        aliases=("gamma",),
        unit_range=True,
        in_float=True,
        neutral={"gamma_limit": (100.0, 100.0)},
    ),
    TransformSpec(
        "RandomToneCurve",
        "Bends the grey curve by two drawn points, darker and brighter parts each their own way.",
        {"scale": number(0.1, "Standard deviation of the points", 0, 1, "share of the full range")},
        pixel_types=("uint8",),
    ),
    TransformSpec(
        "Equalize",
        "Spreads the grey values so that each is about as frequent as the others; three channels keep their colour.",
        {"blend": _BLEND},
        aliases=("equalize_histogram", "equalize histogram"),
        unit_range=True,
        neutral={"blend": _NO_BLEND},
        factory=f"{_OWN}.contrast:Equalize",
    ),
    TransformSpec(
        "CLAHE",
        "Equalises by tiles, with a limit to what is raised.",
        {
            "clip_limit": span(1, 2, "How many times its even share a grey value may count", 0.1, 40),
            "tile_grid_size": whole_pair(8, 8, "Rows and columns of tiles", 1, 64),
        },
        aliases=("clahe",),
        pixel_types=("uint8", "uint16"),
        factory=f"{_OWN}.contrast:CLAHE",
        source="Zuiderveld, 1994",
    ),
    TransformSpec(
        "AutoContrast",
        "Stretches the grey values to the full range, all channels alike.",
        {"cutoff": span(0, 1, "Darkest and brightest pixels that may be lost", 0, 20, "percent"), "blend": _BLEND},
        unit_range=True,
        neutral={"blend": _NO_BLEND},
        factory=f"{_OWN}.contrast:AutoContrast",
    ),
    TransformSpec(
        "Illumination",
        "Brightens or darkens unevenly: along a line, in a corner, or about a point.",
        {
            "mode": choice("linear", ("linear", "corner", "gaussian"), "Shape of the change"),
            "intensity_range": span(0.02, 0.15, "Largest change", 0.01, 0.2, "share of the full range"),
            "effect_type": choice("both", ("brighten", "darken", "both"), "Which way"),
        },
        unit_range=True,
    ),
    TransformSpec("InvertImg", "Gives the negative.", aliases=("invert",), unit_range=True),
    TransformSpec("NoOp", "Changes nothing: the original among the copies.", aliases=("none",)),
)
