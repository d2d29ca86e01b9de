"""Transforms that change brightness, contrast and the grey curve."""

from __future__ import annotations

from oteo_core.augmentation.catalogue.parameters import span
from oteo_core.augmentation.catalogue.spec import TransformSpec

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
)
