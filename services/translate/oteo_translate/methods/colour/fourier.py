"""Yang and Soatto, "FDA: Fourier Domain Adaptation for Semantic Segmentation", CVPR 2020: coarse amplitudes of home, phases of the image.

The paper swaps a small square of the spectrum, so nothing but that square's coefficients is computed: as products with the waves themselves, which
ONNX has for any size where it has no transform. The square is counted in waves per image, as it was when fitting: an image that is later translated at its
original size shows the same field, and gets the same change as its small copy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from oteo_core.graphs.modules import saved
from oteo_translate.domains import Domain
from oteo_translate.methods.base import TRAINING_FREE, FitContext, Method, Parameters, Translation, method
from oteo_translate.methods.sampling import planes

BETAS = (0.01, 0.02, 0.05, 0.09)

_FAINT = 1e-5
"""Amplitudes below are rounding: their phase says nothing, and they are not raised."""


def waves(length: torch.Tensor, band: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Give cosines and sines of -band to band waves over L points.

    Parameters
    ----------
    length
        Anything of shape ``(L,)``.
    band
        Waves at most.

    Returns
    -------
    cosines, sines
        ``(2 * band + 1, L)``.
    fits
        ``(2 * band + 1,)``: 1 where L points carry such a wave, 0 where it is beyond the finest.
    """
    points = torch.arange(length.shape[0], dtype=torch.float32)
    count = torch.ones_like(points).sum()
    numbers = torch.arange(-band, band + 1, dtype=torch.float32)
    turns = numbers[:, None] * points[None, :] / count
    angles = 2 * math.pi * (turns - turns.floor())
    return torch.cos(angles), torch.sin(angles), (2 * numbers.abs() < count).float()


def coefficients(planes: torch.Tensor, band: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Give real and imaginary part of the coarse Fourier coefficients.

    Parameters
    ----------
    planes
        ``(N, C, H, W)``.
    band
        Waves per image on either axis, at most.

    Returns
    -------
    real, imaginary
        ``(N, C, 2 * band + 1, 2 * band + 1)``, from -band to band waves; divided by H * W, so that the middle is the mean.
    """
    cos_h, sin_h, _ = waves(planes[0, 0, :, 0], band)
    cos_w, sin_w, _ = waves(planes[0, 0, 0, :], band)
    along_cos, along_sin = planes @ cos_w.T, planes @ sin_w.T
    size = torch.ones_like(planes[:1, :1]).sum()
    return (cos_h @ along_cos - sin_h @ along_sin) / size, -(cos_h @ along_sin + sin_h @ along_cos) / size


def amplitude(real: torch.Tensor, imaginary: torch.Tensor) -> torch.Tensor:
    """Give the absolute value of complex numbers."""
    return (real.square() + imaginary.square()).sqrt()


@saved
class FourierTranslation(Translation):
    """Replace the amplitudes of the coarsest waves by home's mean amplitudes; phases, and all that is finer, stay.

    Parameters
    ----------
    channels
        Of the images.
    band
        Waves per image on either axis up to which amplitudes are replaced; 0: the mean alone.
    """

    kind = "translation-fourier"
    amplitudes: torch.Tensor

    def __init__(self, channels: int, band: int) -> None:
        super().__init__(channels=channels, band=band)
        self.band = band
        self.register_buffer("amplitudes", torch.zeros(1, channels, 2 * band + 1, 2 * band + 1))
        middle = torch.zeros(2 * band + 1, 2 * band + 1)
        middle[band, band] = 1.0
        self.register_buffer("middle", middle, persistent=False)

    middle: torch.Tensor

    def forward(self, planes: torch.Tensor) -> torch.Tensor:
        """See `Translation`."""
        cos_h, sin_h, fits_h = waves(planes[0, 0, :, 0], self.band)
        cos_w, sin_w, fits_w = waves(planes[0, 0, 0, :], self.band)
        real, imaginary = coefficients(planes, self.band)
        own = amplitude(real, imaginary)
        more = (self.amplitudes / own.clamp(min=_FAINT) - 1) * fits_h[:, None] * fits_w[None, :]
        # The mean of a black image has no phase; it is home's all the same.
        real_more = torch.where(self.middle > 0, self.amplitudes - real, real * more)
        imaginary_more = torch.where(self.middle > 0, torch.zeros_like(more), imaginary * more)
        along_cos = real_more @ cos_w - imaginary_more @ sin_w
        along_sin = real_more @ sin_w + imaginary_more @ cos_w
        return (planes + cos_h.T @ along_cos - sin_h.T @ along_sin).clamp(0, 1)


@method
class Fourier(Method):
    """Fourier domain adaptation."""

    name = "fda"
    kind = TRAINING_FREE
    summary = "Amplitudes of the coarsest waves are replaced by home's, phases stay (Fourier domain adaptation, Yang and Soatto 2020)."
    cost = 0.05
    per_image = 0.002

    def read(self, given: Parameters) -> dict[str, Any]:
        """See `Method`."""
        return {"beta": given.number("beta", BETAS[0], 0.0, 0.5)}

    def fit(self, shifted: Domain, home: Domain, parameters: Mapping[str, Any], context: FitContext) -> Translation:
        """See `Method`; ``beta`` of 0 to 0.5: half the side of the replaced square as a share of the image's shorter side."""
        self.check(shifted, home)
        beta: float = self.settings(parameters)["beta"]
        side = min(home.images.shape[1:3])
        band = min(int(beta * side), (side - 1) // 2)
        found = FourierTranslation(home.channels, band)
        found.amplitudes = torch.stack([amplitude(*coefficients(one, band)) for one in planes(home, context.check)]).mean(0)
        return found.eval()

    def grid(self) -> tuple[Mapping[str, Any], ...]:
        """See `Method`."""
        return tuple({"beta": beta} for beta in BETAS)
