"""Transforms that blur and sharpen."""

from __future__ import annotations

from oteo_core.augmentation.catalogue.parameters import span
from oteo_core.augmentation.catalogue.spec import TransformSpec

BLUR = (
    TransformSpec(
        "GaussianBlur",
        "Blurs by a Gaussian, as a lens a little out of focus does.",
        {"sigma_limit": span(0.3, 1.2, "Standard deviation of the Gaussian", 0, 50, "pixels")},
        {"blur_limit": 0},
        mixes=True,
    ),
)
