"""Transforms that change colour."""

from __future__ import annotations

from oteo_core.augmentation.catalogue.parameters import span
from oteo_core.augmentation.catalogue.spec import TransformSpec

RGB = frozenset({3})

COLOUR = (
    TransformSpec(
        "ColorJitter",
        "Changes brightness, contrast and saturation by factors and turns the hue.",
        {
            "brightness": span(1, 1, "Factor of the brightness", 0, 10),
            "contrast": span(1, 1, "Factor of the contrast", 0, 10),
            "saturation": span(0.8, 1.2, "Factor of the saturation", 0, 10),
            "hue": span(-0.03, 0.03, "Turn of the hue", -0.5, 0.5, "share of the colour circle"),
        },
        channels=RGB,
        unit_range=True,
        neutral={"brightness": (1.0, 1.0), "contrast": (1.0, 1.0), "saturation": (1.0, 1.0), "hue": (0.0, 0.0)},
    ),
)
