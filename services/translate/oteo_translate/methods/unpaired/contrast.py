"""One way only, held by contrast between patches: the objective of CUT, FastCUT and SinCUT."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from oteo_translate.methods.unpaired.losses import same
from oteo_translate.methods.unpaired.nce import PatchFeatures, draw_places, patch_nce
from oteo_translate.methods.unpaired.objectives import PENALTY_EVERY, Losses, Objective
from oteo_translate.methods.unpaired.pools import ImagePool
from oteo_translate.methods.unpaired.recipe import Recipe

if TYPE_CHECKING:
    from oteo_translate.tasks.network import FrozenNetwork


class ContrastiveObjective(Objective):
    """A generator, the vectors of its patches, and a discriminator (Park et al., ECCV 2020, section 3).

    The source's features are taken from the pass that translates it and not from another one: the weights are the same, and a
    quarter of the generator's time is saved. Only a mirrored batch needs its own (section 4, "FastCUT").
    """

    def __init__(self, recipe: Recipe, channels: int, seed: int, network: FrozenNetwork | None = None) -> None:
        super().__init__(recipe, channels, seed, network)
        self.forth = self.new_generator()
        self.vectors = PatchFeatures(self.forth.widths, recipe.vector)
        self.begin(self.vectors)
        self.judge = self.new_discriminator()
        self.drawing.update({"forth": self.forth, "vectors": self.vectors} if recipe.contrast > 0 else {"forth": self.forth})
        self.judging.update({"home": self.judge})
        self._pool = ImagePool(recipe.pool)
        self._drawn: torch.Tensor | None = None

    def drawing_loss(self, shifted: torch.Tensor, home: torch.Tensor, draws: torch.Generator) -> tuple[torch.Tensor, Losses]:
        """See `Objective`."""
        recipe, count = self.recipe, len(shifted)
        losses: Losses = {}
        mirrored = recipe.equivariance and float(torch.rand((), generator=draws)) < 0.5
        source = torch.cat([shifted, home]) if recipe.identity > 0 or recipe.pixels > 0 else shifted
        found, maps = self.forth.seen(source.flip(-1) if mirrored else source)
        as_home = found[:count]
        losses["adversarial"] = self.adversarial.generator(self.judge(as_home))
        total = losses["adversarial"]
        compared = len(source) if recipe.identity > 0 else count
        if recipe.contrast > 0:
            queries = self.forth.features(found[:compared])
            places = draw_places(queries, recipe.patches, draws)
            # Queries first: weights that autocast casts where no gradient is kept would be used again without one.
            seen = self.vectors([one.flip(-1) for one in queries] if mirrored else queries, places)
            with torch.no_grad():
                keys = self.forth.features(source[:compared]) if mirrored else [one[:compared].detach() for one in maps]
                wanted = self.vectors(keys, places)
            pairs = list(zip(seen, wanted, strict=True))
            losses["contrast"] = torch.stack([patch_nce(query[:count], key[:count]) for query, key in pairs]).mean()
            if recipe.identity > 0:
                losses["identity"] = torch.stack([patch_nce(query[count:], key[count:]) for query, key in pairs]).mean()
                # Half and half at the papers' identity of 1.
                share = recipe.identity / (1.0 + recipe.identity)
                total = total + recipe.contrast * ((1.0 - share) * losses["contrast"] + share * losses["identity"])
            else:
                total = total + recipe.contrast * losses["contrast"]
        if recipe.pixels > 0:
            losses["pixels"] = same(found[count:], home.flip(-1) if mirrored else home)
            total = total + recipe.pixels * losses["pixels"]
        total = total + self.structure(shifted.flip(-1) if mirrored else shifted, as_home, draws, losses)
        self._drawn = as_home.detach()
        return total, losses

    def judging_loss(self, shifted: torch.Tensor, home: torch.Tensor, draws: torch.Generator, step: int) -> tuple[torch.Tensor, Losses]:
        """See `Objective`."""
        if self._drawn is None:
            raise RuntimeError("nothing was drawn yet")
        loss = self.judged(self.judge, home, self._pool.show(self._drawn, draws))
        losses = {"discriminator": loss}
        if self.recipe.penalty > 0 and step % PENALTY_EVERY == 0:
            loss = loss + 0.5 * PENALTY_EVERY * self.recipe.penalty * self.steepness(self.judge, home)
        return loss, losses

    def pools(self) -> list[list[torch.Tensor]]:
        """See `Objective`."""
        return [self._pool.state()]

    def restore_pools(self, kept: list[list[torch.Tensor]], device: torch.device) -> None:
        """See `Objective`."""
        for images in kept:
            self._pool.restore(images, device)
