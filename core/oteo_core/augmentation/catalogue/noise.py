"""Transforms that add noise."""

from __future__ import annotations

from oteo_core.augmentation.catalogue.parameters import span
from oteo_core.augmentation.catalogue.spec import TransformSpec

NOISE = (
    TransformSpec(
        "GaussNoise",
        "Adds Gaussian noise, as a camera's electronics do.",
        {"std_range": span(0.01, 0.04, "Standard deviation of the noise", 0, 1, "share of the full range")},
        unit_range=True,
        neutral={"std_range": (0.0, 0.0)},
    ),
)
