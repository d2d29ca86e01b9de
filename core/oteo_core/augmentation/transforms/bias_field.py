"""Uneven sensitivity of a magnetic resonance coil."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from oteo_core.augmentation.transforms.base import Span, UnitTransform

ORDER = 3
TERMS = [(across, down) for across in range(ORDER + 1) for down in range(ORDER + 1 - across) if across or down]


class BiasField(UnitTransform):
    """Multiplies by a smooth field: the exponential of a polynomial of third order.

    Van Leemput et al., "Automated model-based bias field correction of MR images of the brain", 1999; as an augmentation in
    Sudre et al., "Longitudinal segmentation of age-related white matter hyperintensities", 2017.

    Parameters
    ----------
    strength
        Largest coefficient of the polynomial; at 0.3 the field spans about 0.7 to 1.4.
    p
        How likely it is applied.
    """

    def __init__(self, strength: Span = (0.05, 0.2), p: float = 1.0) -> None:
        super().__init__(p=p)
        self.strength = strength

    def get_params(self) -> dict[str, Any]:
        """Draw the polynomial's coefficients."""
        largest = self.draw(self.strength)
        return {"coefficients": [self.py_random.uniform(-largest, largest) for _ in TERMS]}

    def change(self, pixels: NDArray[np.float32], **params: Any) -> NDArray[np.float32]:
        """Multiply."""
        height, width = pixels.shape[:2]
        down = np.linspace(-1, 1, height)[:, None]
        across = np.linspace(-1, 1, width)[None, :]
        exponent = np.zeros((height, width))
        for (i, j), coefficient in zip(TERMS, params["coefficients"], strict=True):
            exponent += coefficient * across**i * down**j
        field = np.exp(exponent - exponent.mean()).astype(np.float32)
        return np.asarray(pixels * field[:, :, None])
