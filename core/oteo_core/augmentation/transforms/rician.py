"""Noise of magnitude images in magnetic resonance."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from oteo_core.augmentation.transforms.base import Span, UnitTransform, seeded


class RicianNoise(UnitTransform):
    """Adds Gaussian noise to the real and the imaginary part and takes the magnitude.

    Gudbjartsson and Patz, "The Rician distribution of noisy MRI data", 1995. It brightens the dark background, as it does in truth.

    Parameters
    ----------
    std
        Standard deviation in each part, as a share of the full range.
    p
        How likely it is applied.
    """

    def __init__(self, std: Span = (0.01, 0.04), p: float = 1.0) -> None:
        super().__init__(p=p)
        self.std = std

    def get_params(self) -> dict[str, Any]:
        """Draw the strength and the seed of the noise."""
        return {"sigma": self.draw(self.std), "seed": self.draw_seed()}

    def change(self, pixels: NDArray[np.float32], **params: Any) -> NDArray[np.float32]:
        """Add the noise."""
        sigma = np.float32(params["sigma"])
        if sigma == 0:
            return pixels
        generator = seeded(params["seed"])
        real = pixels + sigma * generator.standard_normal(pixels.shape, np.float32)
        result: NDArray[np.float32] = np.hypot(real, sigma * generator.standard_normal(pixels.shape, np.float32))
        return result
