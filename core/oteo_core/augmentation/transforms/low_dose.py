"""Fewer photons: X-rays of a lower dose, fluorescence with a shorter exposure."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from oteo_core.augmentation.transforms.base import Span, UnitTransform, seeded


class LowDose(UnitTransform):
    """Adds the noise that the image would have at a part of its dose.

    An image of N photons a pixel at dose 1 has the variance x / N, and x / (d N) at dose d. The difference, x (1 - d) / (d N), is drawn
    from a Poisson distribution of mean x K, divided by K = N d / (1 - d). Zeng et al., "A simple low-dose X-ray CT simulation from
    high-dose scan", 2015, without the electronics' noise.

    Parameters
    ----------
    dose
        Share of the dose that is left, above 0 to 1.
    photons
        Photons that a white pixel had.
    p
        How likely it is applied.
    """

    def __init__(self, dose: Span = (0.2, 0.7), photons: float = 2000.0, p: float = 1.0) -> None:
        super().__init__(p=p)
        self.dose = dose
        self.photons = photons

    def get_params(self) -> dict[str, Any]:
        """Draw the dose and the seed of the noise."""
        return {"share": self.draw(self.dose), "seed": self.draw_seed()}

    def change(self, pixels: NDArray[np.float32], **params: Any) -> NDArray[np.float32]:
        """Count photons anew."""
        share = params["share"]
        if share >= 1:
            return pixels
        counts = self.photons * share / (1 - share)
        return np.asarray(seeded(params["seed"]).poisson(pixels * counts) / counts, np.float32)
