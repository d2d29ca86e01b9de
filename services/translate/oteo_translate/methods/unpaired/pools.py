"""Drawn images of earlier steps, so that a discriminator does not forget them."""

from __future__ import annotations

import torch


class ImagePool:
    """Keep drawn images, and show old ones in place of half the new ones.

    Shrivastava et al., "Learning from simulated and unsupervised images through adversarial training", CVPR 2017, section 2.3.

    Parameters
    ----------
    size
        Images kept; 0: none, new ones are shown as they are.
    """

    def __init__(self, size: int = 50) -> None:
        self.size = size
        self._kept: list[torch.Tensor] = []

    def show(self, drawn: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Take new images ``(N, C, H, W)`` and give as many, new and old."""
        if self.size == 0:
            return drawn.detach()
        shown = []
        for image in drawn.detach():
            if len(self._kept) < self.size:
                self._kept.append(image.clone())
                shown.append(image)
                continue
            old, place = torch.rand((), generator=generator), torch.randint(self.size, (), generator=generator)
            if float(old) < 0.5:
                shown.append(self._kept[int(place)])
                self._kept[int(place)] = image.clone()
            else:
                shown.append(image)
        return torch.stack(shown)

    def state(self) -> list[torch.Tensor]:
        """Give the images kept, on the processor."""
        return [image.cpu() for image in self._kept]

    def restore(self, kept: list[torch.Tensor], device: torch.device) -> None:
        """Take up what `state` gave."""
        self._kept = [image.to(device) for image in kept]
