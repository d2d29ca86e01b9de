"""What is made small: adversarial losses, and losses of one image against another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
import torch.nn.functional as F


class Adversarial(Protocol):
    """A game between a generator and a discriminator; all take judgements of any shape and give a scalar."""

    def critic(self, real: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
        """Give the discriminator's loss."""
        ...

    def generator(self, drawn: torch.Tensor) -> torch.Tensor:
        """Give the generator's loss."""
        ...


class LeastSquares:
    """Mao et al., "Least squares generative adversarial networks", ICCV 2017, with the half of CycleGAN for the discriminator."""

    def critic(self, real: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
        """See `Adversarial`."""
        return 0.5 * ((real.float() - 1.0).square().mean() + drawn.float().square().mean())

    def generator(self, drawn: torch.Tensor) -> torch.Tensor:
        """See `Adversarial`."""
        return (drawn.float() - 1.0).square().mean()


class Wasserstein:
    """Arjovsky et al., "Wasserstein generative adversarial networks", ICML 2017, whose critic is kept smooth by cutting its weights; DualGAN's.

    Gulrajani's gradient penalty is not used: it needs second derivatives, which cost as much as the rest of a step.
    """

    def critic(self, real: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
        """See `Adversarial`."""
        return drawn.float().mean() - real.float().mean()

    def generator(self, drawn: torch.Tensor) -> torch.Tensor:
        """See `Adversarial`."""
        return -drawn.float().mean()


ADVERSARIAL: Mapping[str, Adversarial] = {"least-squares": LeastSquares(), "wasserstein": Wasserstein()}


def same(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Give the mean absolute difference, in units of the papers (images of -1 to 1): twice that of images of 0 to 1."""
    return 2.0 * F.l1_loss(first.float(), second.float())
