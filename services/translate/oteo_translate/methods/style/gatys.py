"""Gatys, Ecker and Bethge, "Image Style Transfer Using Convolutional Neural Networks", CVPR 2016."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from oteo_core.graphs.modules import Spec, saved
from oteo_translate.domains import Domain
from oteo_translate.methods.base import STYLE, FitContext, Method, Parameters, Translation, method
from oteo_translate.methods.style.encoder import encoder_for
from oteo_translate.methods.style.optimising import OptimisedTranslation, style_images

STEPS = 60
_RATE = 0.02
_SMOOTH = 1.0


def gram(features: torch.Tensor) -> torch.Tensor:
    """Give the mean products of channels ``(N, c, c)`` of ``(N, c, h, w)`` (the paper's equation 3, over the number of places)."""
    flat = features.flatten(2)
    return flat @ flat.transpose(1, 2) / flat.shape[2]


@saved
class GatysTranslation(OptimisedTranslation):
    """Descend from the image to one with home's mean Gram matrices and its own coarse features.

    Parameters
    ----------
    channels, encoder
        See `OptimisedTranslation`.
    widths
        Channels of the features at each resolution.
    steps
        Of Adam.
    weight
        Of style against content.
    """

    kind = "translation-gatys"

    def __init__(self, channels: int, encoder: Spec, widths: list[int], steps: int, weight: float) -> None:
        super().__init__(channels, encoder, widths=widths, steps=steps, weight=weight)
        self.steps, self.weight, self.levels = steps, weight, len(widths)
        for level, width in enumerate(widths):
            self.register_buffer(f"gram_{level}", torch.zeros(1, width, width))

    def work(self, small: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
        """See `OptimisedTranslation`."""
        due = [self.get_buffer(f"gram_{level}") for level in range(self.levels)]
        content = self.encoder.seen(start)[-1].detach()
        scale = content.square().mean().clamp(min=1e-6)
        image = start.clone().requires_grad_()
        descent = torch.optim.Adam([image], lr=_RATE)
        for _ in range(self.steps):
            descent.zero_grad()
            seen = self.encoder.seen(image)
            loss = (seen[-1] - content).square().mean() / scale
            for one, wanted in zip(seen, due, strict=True):
                size = wanted.square().mean().clamp(min=1e-8)
                loss = loss + self.weight / self.levels * (gram(one) - wanted).square().mean() / size
            change = image - start
            rough = (change[..., 1:, :] - change[..., :-1, :]).square().mean() + (change[..., 1:] - change[..., :-1]).square().mean()
            torch.autograd.backward(loss + _SMOOTH * rough, inputs=[image])
            descent.step()
            with torch.no_grad():
                image.clamp_(0, 1)
        return image.detach()


@method
class Gatys(Method):
    """Neural style transfer by optimisation."""

    name = "gatys"
    kind = STYLE
    summary = "Each image is optimised until products of a network's features are home's (neural style transfer, Gatys et al. 2016)."
    # Fitting takes seconds; what counts is that each image then takes seconds.
    cost = 150.0
    per_image = 1.5

    def read(self, given: Parameters) -> dict[str, Any]:
        """See `Method`."""
        return {"steps": given.count("steps", STEPS, 1, 2000), "weight": given.number("weight", 3.0, 0.0, 1e4)}

    def fit(self, shifted: Domain, home: Domain, parameters: Mapping[str, Any], context: FitContext) -> Translation:
        """See `Method`; ``steps`` of the descent, ``weight`` of style against content."""
        self.check(shifted, home)
        settings = self.settings(parameters)
        encoder = encoder_for(context, home.channels)
        total: list[torch.Tensor] = []
        images = list(style_images(home, encoder, context))
        with torch.no_grad():
            for one in images:
                context.check()
                grams = [gram(level) for level in encoder.seen(one)]
                total = [sum_ + new for sum_, new in zip(total, grams, strict=True)] if total else grams
        found = GatysTranslation(home.channels, encoder.spec(), [int(one.shape[1]) for one in total], **settings)
        found.keep(encoder, images)
        for level, one in enumerate(total):
            found.register_buffer(f"gram_{level}", one / len(images))
        return found.eval()

    def grid(self) -> tuple[Mapping[str, Any], ...]:
        """See `Method`."""
        return ({},)
