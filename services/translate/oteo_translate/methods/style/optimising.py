"""What translations share that are found anew for each image by descending a loss."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.nn import functional

from oteo_core.graphs.modules import Spec, build
from oteo_translate.domains import Domain
from oteo_translate.methods.base import FitContext, Translation
from oteo_translate.methods.colour.moments import averaged, brought, measured
from oteo_translate.methods.sampling import planes
from oteo_translate.methods.style.encoder import Encoder
from oteo_translate.methods.style.guided import carried

STYLE_IMAGES = 40
"""Images of home whose features are measured."""


class OptimisedTranslation(Translation):
    """Work on a small copy of each image by itself, and carry over what came of it; a graph cannot do that.

    Parameters
    ----------
    channels
        Of the images.
    encoder
        `Encoder.spec` of the network that sees.
    more
        Settings of the kind.
    """

    exportable = False
    colour_mean: torch.Tensor
    colour_spread: torch.Tensor

    def __init__(self, channels: int, encoder: Spec, **more: Any) -> None:
        super().__init__(channels=channels, encoder=encoder, **more)
        found = build(encoder)
        assert isinstance(found, Encoder)
        self.encoder = found
        self.register_buffer("colour_mean", torch.zeros(1, channels, 1, 1))
        self.register_buffer("colour_spread", torch.zeros(1, channels, 1, 1))

    def keep(self, encoder: Encoder, images: Sequence[torch.Tensor]) -> None:
        """Take over the network and the mean colours of home's images."""
        self.encoder = encoder
        self.colour_mean, self.colour_spread = averaged([measured(one) for one in images])

    def forward(self, planes: torch.Tensor) -> torch.Tensor:
        """See `Translation`."""
        # Gradients are needed, whoever calls; tensors made in inference mode can have none.
        with torch.inference_mode(False), torch.enable_grad():
            given = planes.detach().clone()
            return torch.cat([self._one(given[row : row + 1]) for row in range(len(given))]).detach()

    def work(self, small: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
        """Make of ``(1, C, h, w)``, at the encoder's size, an image that looks like home; deterministic.

        `start` is the same in home's mean colours: a descent that begins there is left with what moments cannot do.
        """
        raise NotImplementedError

    def _one(self, image: torch.Tensor) -> torch.Tensor:
        small = reduced(image, self.encoder)
        start = brought(small, *measured(small), self.colour_mean, self.colour_spread).clamp(0, 1)
        return carried(image, small, self.work(small, start).detach())


def reduced(image: torch.Tensor, encoder: Encoder) -> torch.Tensor:
    """Bring an image to the encoder's size; areas are averaged."""
    return functional.interpolate(image, (encoder.height, encoder.width), mode="bilinear", align_corners=False, antialias=True)


def style_images(domain: Domain, encoder: Encoder, context: FitContext, most: int = STYLE_IMAGES) -> Iterator[torch.Tensor]:
    """Give images ``(1, C, h, w)`` of a domain at the encoder's size."""
    for one in planes(domain, context.check, most):
        yield reduced(one, encoder)
