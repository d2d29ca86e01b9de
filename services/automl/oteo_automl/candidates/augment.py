"""Augmentation of whole batches as tensors, for training loops: one draw for each image, one call for the batch."""

from __future__ import annotations

import math

import torch
from torch.nn import functional


class BatchAugment:
    """Mirrors, turns, shifts, zoom, and changes of light, contrast, colour, sharpness and noise.

    Parameters
    ----------
    strength
        0 is the identity, 1 the usual, 2 strong.
    mirror
        False where left and right mean something.
    generator
        Source of every draw.
    """

    def __init__(self, strength: float, mirror: bool, generator: torch.Generator) -> None:
        self.strength = strength
        self.mirror = mirror
        self._generator = generator

    def _uniform(self, count: int, low: float, high: float, device: torch.device) -> torch.Tensor:
        return (torch.rand(count, generator=self._generator) * (high - low) + low).to(device)

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """Augment ``(N, C, H, W)`` on the scale 0 to 1; the result stays on it."""
        if self.strength <= 0:
            return pixels
        moved = self._move(pixels)
        return self._colour(moved).clamp(0.0, 1.0)

    def _move(self, pixels: torch.Tensor) -> torch.Tensor:
        count, device, s = len(pixels), pixels.device, min(self.strength, 2.0)
        angle = self._uniform(count, -math.pi, math.pi, device) if self.mirror else self._uniform(count, -0.2 * s, 0.2 * s, device)
        zoom = torch.exp(self._uniform(count, -0.2 * s, 0.15 * s, device))
        stretch = torch.exp(self._uniform(count, -0.08 * s, 0.08 * s, device))
        flip = torch.where(self._uniform(count, 0, 1, device) < 0.5, -1.0, 1.0) if self.mirror else torch.ones(count, device=device)
        cosine, sine = torch.cos(angle), torch.sin(angle)
        theta = torch.stack(
            [
                torch.stack([cosine * flip * zoom * stretch, -sine * zoom, self._uniform(count, -0.1 * s, 0.1 * s, device)], dim=1),
                torch.stack([sine * flip * zoom * stretch, cosine * zoom, self._uniform(count, -0.1 * s, 0.1 * s, device)], dim=1),
            ],
            dim=1,
        )
        grid = functional.affine_grid(theta, list(pixels.shape), align_corners=False)
        return functional.grid_sample(pixels, grid, mode="bilinear", padding_mode="reflection", align_corners=False)

    def _colour(self, pixels: torch.Tensor) -> torch.Tensor:
        count, channels, device, s = len(pixels), pixels.shape[1], pixels.device, min(self.strength, 2.0)

        def each(low: float, high: float, width: int = 1) -> torch.Tensor:
            return self._uniform(count * width, low, high, device).view(count, width, 1, 1)

        mean = pixels.mean(dim=(2, 3), keepdim=True)
        out = (pixels - mean) * torch.exp(each(-0.2 * s, 0.2 * s)) + mean + each(-0.08 * s, 0.08 * s)
        if channels == 3:
            grey = out.mean(dim=1, keepdim=True)
            out = (out - grey) * torch.exp(each(-0.25 * s, 0.2 * s)) + grey
            out = out * torch.exp(each(-0.06 * s, 0.06 * s, 3))
        soft = functional.avg_pool2d(out, 3, stride=1, padding=1, count_include_pad=False)
        out = out + (soft - out) * each(-0.4 * s, 0.7 * s)
        noise = torch.randn(out.shape, generator=self._generator).to(device)
        return out + noise * each(0.0, 0.02 * s)
