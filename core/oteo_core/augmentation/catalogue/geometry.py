"""Transforms that move pixels."""

from __future__ import annotations

from oteo_core.augmentation.catalogue.parameters import span
from oteo_core.augmentation.catalogue.spec import TransformSpec

_REFLECT = 4
"""OpenCV's BORDER_REFLECT_101: what lies outside is mirrored in, so that no black corner tells an augmented image."""

GEOMETRY = (
    TransformSpec("HorizontalFlip", "Swaps left and right.", aliases=("mirror",), geometric=True, mirrors=True),
    TransformSpec("VerticalFlip", "Swaps top and bottom; with a half turn it is a mirror, too.", geometric=True, mirrors=True),
    TransformSpec("D4", "One of the eight symmetries of a square: quarter turns and mirrors.", geometric=True, mirrors=True),
    TransformSpec("RandomRotate90", "A number of quarter turns.", geometric=True),
    TransformSpec(
        "Affine",
        "Turns, scales, moves and shears; what lies outside is mirrored in.",
        {
            "rotate": span(-15, 15, "Turn", -360, 360, "degrees"),
            "scale": span(0.9, 1.1, "Scale", 0.1, 10, "times"),
            "translate_percent": span(-0.05, 0.05, "Move along both axes", -1, 1, "share of the side"),
            "shear": span(0, 0, "Shear along both axes", -60, 60, "degrees"),
        },
        {"border_mode": _REFLECT, "keep_ratio": True},
        geometric=True,
        mixes=True,
        neutral={"rotate": (0.0, 0.0), "scale": (1.0, 1.0), "translate_percent": (0.0, 0.0), "shear": (0.0, 0.0)},
    ),
)
