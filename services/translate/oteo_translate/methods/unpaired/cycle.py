"""There and back: CycleGAN's objective, which GANILLA shares, and DualGAN's."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import nn

from oteo_translate.methods.unpaired.losses import same
from oteo_translate.methods.unpaired.objectives import Losses, Objective
from oteo_translate.methods.unpaired.pools import ImagePool
from oteo_translate.methods.unpaired.recipe import Recipe

if TYPE_CHECKING:
    from oteo_translate.tasks.network import FrozenNetwork

CUT_WEIGHTS = 0.01
"""Weights of a Wasserstein critic are cut to this (Arjovsky et al. 2017, algorithm 1)."""


class CycleObjective(Objective):
    """Two generators, each the other's inverse, and two discriminators (Zhu et al., ICCV 2017, section 3).

    What is translated and what must stay as it is goes through a generator in one batch; instance norm keeps images apart, so that nothing
    changes but the time.
    """

    def __init__(self, recipe: Recipe, channels: int, seed: int, network: FrozenNetwork | None = None) -> None:
        super().__init__(recipe, channels, seed, network)
        self.forth, self.back = self.new_generator(), self.new_generator()
        self.judge_home, self.judge_shifted = self.new_discriminator(), self.new_discriminator()
        self.drawing.update({"forth": self.forth, "back": self.back})
        self.judging.update({"home": self.judge_home, "shifted": self.judge_shifted})
        self._pools = ImagePool(recipe.pool), ImagePool(recipe.pool)
        self._drawn: tuple[torch.Tensor, torch.Tensor] | None = None

    def drawing_loss(self, shifted: torch.Tensor, home: torch.Tensor, draws: torch.Generator) -> tuple[torch.Tensor, Losses]:
        """See `Objective`."""
        recipe, count = self.recipe, len(shifted)
        losses: Losses = {}
        if recipe.identity > 0:
            to_home, to_shifted = self.forth(torch.cat([shifted, home])), self.back(torch.cat([home, shifted]))
        else:
            to_home, to_shifted = self.forth(shifted), self.back(home)
        as_home, as_shifted = to_home[:count], to_shifted[:count]
        losses["adversarial"] = self.adversarial.generator(self.judge_home(as_home)) + self.adversarial.generator(
            self.judge_shifted(as_shifted)
        )
        losses["cycle"] = same(self.back(as_home), shifted) + same(self.forth(as_shifted), home)
        total = losses["adversarial"] + recipe.cycle * losses["cycle"]
        if recipe.identity > 0:
            losses["identity"] = same(to_home[count:], home) + same(to_shifted[count:], shifted)
            total = total + recipe.cycle * recipe.identity * losses["identity"]
        total = total + self.structure(shifted, as_home, draws, losses)
        self._drawn = as_home.detach(), as_shifted.detach()
        return total, losses

    def judging_loss(self, shifted: torch.Tensor, home: torch.Tensor, draws: torch.Generator, step: int) -> tuple[torch.Tensor, Losses]:
        """See `Objective`."""
        if self._drawn is None:
            raise RuntimeError("nothing was drawn yet")
        as_home, as_shifted = (pool.show(drawn, draws) for pool, drawn in zip(self._pools, self._drawn, strict=True))
        loss = self.judged(self.judge_home, home, as_home) + self.judged(self.judge_shifted, shifted, as_shifted)
        return loss, {"discriminator": loss}

    def pools(self) -> list[list[torch.Tensor]]:
        """See `Objective`."""
        return [pool.state() for pool in self._pools]

    def restore_pools(self, kept: list[list[torch.Tensor]], device: torch.device) -> None:
        """See `Objective`."""
        for pool, images in zip(self._pools, kept, strict=True):
            pool.restore(images, device)


class DualObjective(CycleObjective):
    """The same pair under Wasserstein's loss (Yi et al., "DualGAN: unsupervised dual learning for image-to-image translation", ICCV 2017, section 3).

    RMSProp, critics whose weights are cut, mean absolute reconstruction both ways.
    """

    def optimiser(self, parameters: Iterable[nn.Parameter], fused: bool) -> torch.optim.Optimizer:
        """See `Objective`."""
        return torch.optim.RMSprop(parameters, lr=self.recipe.rate, alpha=0.9)

    @torch.no_grad()
    def after_judging(self) -> None:
        """Cut the critics' weights."""
        for parameter in self.judging.parameters():
            parameter.clamp_(-CUT_WEIGHTS, CUT_WEIGHTS)
