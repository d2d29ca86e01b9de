"""Kolkin, Salavon and Shakhnarovich, "Style Transfer by Relaxed Optimal Transport and Self-Similarity" (STROTSS), CVPR 2019."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.nn import functional

from oteo_core.graphs.modules import Spec, saved
from oteo_translate.domains import Domain
from oteo_translate.methods.base import STYLE, FitContext, Method, Parameters, Translation, method
from oteo_translate.methods.style.encoder import Encoder, encoder_for
from oteo_translate.methods.style.optimising import OptimisedTranslation, style_images

STEPS = 30
SAMPLES = 1024
_SCALES = (0.25, 0.5, 1.0)
"""Of the encoder's size: coarse looks first."""

_ALPHA = 16.0
_RATE = 0.002
_PYRAMID = 4
_PLACES = 256
_OPPONENT = ((0.577350, 0.577350, 0.577350), (-0.577350, 0.788675, -0.211325), (-0.577350, -0.211325, 0.788675))
"""An orthonormal base whose first axis is lightness, for palettes (the paper's section 2.3 decorrelates colours)."""


def columns(encoder: Encoder, image: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Give pixel and features of all resolutions at some places (hypercolumns), ``(P, D)``; `places` ``(P, 2)`` are x and y of -1 to 1."""
    grid = places[None, :, None, :]
    maps = [image, *encoder.features(image)]
    taken = [functional.grid_sample(one, grid, mode="bilinear", padding_mode="border", align_corners=False)[0, :, :, 0] for one in maps]
    return torch.cat(taken).T


def cosine_distance(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Give ``(P, Q)``: 1 - cosine between rows."""
    return 1 - functional.normalize(one, dim=1) @ functional.normalize(other, dim=1).T


def relaxed_transport(cost: torch.Tensor) -> torch.Tensor:
    """Give the relaxed earth mover's distance of a cost matrix: the dearer of letting each go where it is cheapest (equation 6)."""
    return torch.maximum(cost.min(1).values.mean(), cost.min(0).values.mean())


def self_similarity(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Give how much the pattern of distances within changed (equation 7)."""
    first, second = cosine_distance(one, one), cosine_distance(other, other)
    return (first / first.sum(0).clamp(min=1e-6) - second / second.sum(0).clamp(min=1e-6)).abs().sum(0).mean()


def moments(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Give the distance of means and covariances (equation 8)."""
    means = (one.mean(0) - other.mean(0)).abs().mean()
    first, second = one - one.mean(0), other - other.mean(0)
    return means + (first.T @ first / len(one) - second.T @ second / len(other)).abs().mean()


def palette(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Give the relaxed transport of pixels ``(P, C)``."""
    if one.shape[1] == 3:
        base = torch.tensor(_OPPONENT).to(one)
        one, other = one @ base.T, other @ base.T
    distances = (one[:, None, :] - other[None, :, :]).square().sum(2).clamp(min=1e-10).sqrt()
    return relaxed_transport(distances)


def _halved(size: tuple[int, int]) -> tuple[int, int]:
    return max(1, size[0] // 2), max(1, size[1] // 2)


def taken_apart(image: torch.Tensor) -> list[torch.Tensor]:
    """Give the Laplacian pyramid of an image, fine to coarse: descending on it changes coarse looks as easily as fine ones."""
    parts = []
    for _ in range(_PYRAMID):
        size = (int(image.shape[2]), int(image.shape[3]))
        small = functional.interpolate(image, _halved(size), mode="bilinear", align_corners=False)
        parts.append(image - functional.interpolate(small, size, mode="bilinear", align_corners=False))
        image = small
    return [*parts, image]


def put_together(parts: list[torch.Tensor]) -> torch.Tensor:
    """Undo `taken_apart`."""
    image = parts[-1]
    for part in reversed(parts[:-1]):
        image = part + functional.interpolate(image, part.shape[2:], mode="bilinear", align_corners=False)
    return image


@saved
class StrotssTranslation(OptimisedTranslation):
    """Descend, coarse to fine, to an image whose features are spread as home's and are alike among each other as the image's own.

    Parameters
    ----------
    channels, encoder
        See `OptimisedTranslation`.
    width
        Numbers of a hypercolumn.
    steps
        Of RMSprop at each of the three scales.
    weight
        Of content; 1 is the paper's.
    """

    kind = "translation-strotss"
    style: torch.Tensor

    def __init__(self, channels: int, encoder: Spec, width: int, steps: int, weight: float) -> None:
        super().__init__(channels, encoder, width=width, steps=steps, weight=weight)
        self.steps, self.weight, self.channels = steps, weight, channels
        self.register_buffer("style", torch.zeros(len(_SCALES), SAMPLES, width))

    def work(self, small: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
        """See `OptimisedTranslation`."""
        draws = torch.Generator().manual_seed(0)
        height, width = (int(side) for side in small.shape[2:])
        alpha = _ALPHA * self.weight
        image = start
        for scale, style in zip(_SCALES, self.style, strict=True):
            size = (max(8, round(height * scale)), max(8, round(width * scale)))
            content = functional.interpolate(start, size, mode="bilinear", align_corners=False)
            begun = functional.interpolate(image, size, mode="bilinear", align_corners=False)
            image = self._descend(begun, content, style, alpha, draws)
            alpha /= 2
        return image

    def _descend(
        self, start: torch.Tensor, content: torch.Tensor, style: torch.Tensor, alpha: float, draws: torch.Generator
    ) -> torch.Tensor:
        parts = [part.detach().clone().requires_grad_() for part in taken_apart(start)]
        descent = torch.optim.RMSprop(parts, lr=_RATE)
        for _ in range(self.steps):
            descent.zero_grad()
            places = torch.rand(_PLACES, 2, generator=draws) * 2 - 1
            chosen = style[torch.randperm(len(style), generator=draws)[:_PLACES]]
            with torch.no_grad():
                own = columns(self.encoder, content, places)
            now = columns(self.encoder, put_together(parts), places)
            features, wanted = now[:, self.channels :], chosen[:, self.channels :]
            looks = relaxed_transport(cosine_distance(features, wanted)) + moments(features, wanted)
            colours = palette(now[:, : self.channels], chosen[:, : self.channels])
            kept = self_similarity(features, own[:, self.channels :])
            loss = (alpha * kept + looks + colours / alpha) / (2 + alpha + 1 / alpha)
            torch.autograd.backward(loss, inputs=parts)
            descent.step()
        return put_together(parts).detach().clamp(0, 1)


@method
class Strotss(Method):
    """Style transfer by relaxed optimal transport and self-similarity."""

    name = "strotss"
    kind = STYLE
    summary = "Each image is optimised by optimal transport of a network's features under self-similarity (STROTSS, Kolkin et al. 2019)."
    cost = 350.0
    per_image = 3.5

    def read(self, given: Parameters) -> dict[str, Any]:
        """See `Method`."""
        return {"steps": given.count("steps", STEPS, 1, 1000), "weight": given.number("weight", 1.0, 1e-3, 1e3)}

    def fit(self, shifted: Domain, home: Domain, parameters: Mapping[str, Any], context: FitContext) -> Translation:
        """See `Method`; ``steps`` at each scale, ``weight`` of content."""
        self.check(shifted, home)
        settings = self.settings(parameters)
        encoder = encoder_for(context, home.channels)
        draws = torch.Generator().manual_seed(context.seed)
        images = list(style_images(home, encoder, context))
        each = -(-SAMPLES // len(images))
        style = []
        with torch.no_grad():
            for scale in _SCALES:
                taken = []
                for one in images:
                    context.check()
                    size = [max(8, round(int(side) * scale)) for side in one.shape[2:]]
                    scaled = functional.interpolate(one, size, mode="bilinear", align_corners=False)
                    taken.append(columns(encoder, scaled, torch.rand(each, 2, generator=draws) * 2 - 1))
                rows = torch.cat(taken)
                style.append(rows[torch.randperm(len(rows), generator=draws)[:SAMPLES]])
        found = StrotssTranslation(home.channels, encoder.spec(), int(style[0].shape[1]), **settings)
        found.keep(encoder, images)
        found.style = torch.stack(style)
        return found.eval()
