"""SinCUT."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oteo_translate.methods.base import method
from oteo_translate.methods.unpaired.contrast import ContrastiveObjective
from oteo_translate.methods.unpaired.recipe import Recipe
from oteo_translate.methods.unpaired.training import UnpairedMethod


def most_typical(images: NDArray[Any]) -> int:
    """Give the number of the image whose channels' means and spreads are nearest to the domain's; of ``(N, H, W, C)``."""
    figures = np.array([[*image.mean((0, 1), dtype=np.float64), *image.std((0, 1), dtype=np.float64)] for image in images])
    return int(np.argmin(np.square(figures - np.median(figures, 0)).sum(1)))


@method
class SinCUT(UnpairedMethod):
    """Park et al., ECCV 2020, section 4.4: CUT on one image of each domain, the most typical where there are more.

    Crops of three quarters of the side at changing scales stand in for many images; pixels of home must stay, and the discriminator's gradient is
    kept small, as in the paper. The generator is CUT's: StyleGAN2's, which the paper takes for pictures of many megapixels, would learn more slowly
    on the small images here.
    """

    name = "sincut"
    summary = "CUT from one image of each domain (SinCUT; Park et al., ECCV 2020)."
    least = 1
    cost = 300.0
    objective = ContrastiveObjective
    recipe = Recipe(contrast=4.0, identity=0.0, pixels=5.0, penalty=1.0, zoom=0.25, pool=0)

    def chosen(self, images: NDArray[Any]) -> NDArray[Any]:
        """Give the most typical image."""
        row = most_typical(images)
        return images[row : row + 1]

    def cropped(self, recipe: Recipe, height: int, width: int) -> Recipe:
        """Take crops smaller than the image."""
        return recipe if recipe.crop else replace(recipe, crop=max(8, min(height, width, 256) * 3 // 4))
