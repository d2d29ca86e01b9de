"""Stains of a section, taken apart and put together a little stronger or weaker."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from oteo_core.augmentation.transforms.base import Span, UnitTransform

_STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
"""Absorption of haematoxylin, eosin and DAB in red, green and blue (Ruifrok and Johnston, 2001)."""
TO_COLOUR = (_STAINS / np.linalg.norm(_STAINS, axis=1, keepdims=True)).astype(np.float32)
TO_STAIN = np.linalg.inv(TO_COLOUR.astype(np.float64)).astype(np.float32)
DARKEST = np.float32(1 / 65535)


class StainJitter(UnitTransform):
    """Scales and shifts each stain's density (Tellez et al., "Whole-slide mitosis detection in H&E breast histology", 2018).

    Parameters
    ----------
    scale
        Factor of each stain's density.
    shift
        What is added to each stain's density, in optical density to base 10.
    p
        How likely it is applied.
    """

    def __init__(self, scale: Span = (0.9, 1.1), shift: Span = (-0.02, 0.02), p: float = 1.0) -> None:
        super().__init__(p=p)
        self.scale = scale
        self.shift = shift

    def get_params(self) -> dict[str, Any]:
        """Draw a factor and an addend for each of three stains."""
        return {"scales": [self.draw(self.scale) for _ in range(3)], "shifts": [self.draw(self.shift) for _ in range(3)]}

    def change(self, pixels: NDArray[np.float32], **params: Any) -> NDArray[np.float32]:
        """Take apart, change, put together."""
        scales, shifts = np.array(params["scales"], np.float32), np.array(params["shifts"], np.float32)
        if (scales == 1).all() and (shifts == 0).all():
            return pixels
        density = -np.log10(np.maximum(pixels, DARKEST))
        changed = (density @ TO_STAIN * scales + shifts) @ TO_COLOUR
        result: NDArray[np.float32] = np.power(np.float32(10), -changed)
        return result
