"""DualGAN."""

from __future__ import annotations

from oteo_translate.methods.base import method
from oteo_translate.methods.unpaired.cycle import DualObjective
from oteo_translate.methods.unpaired.recipe import Recipe
from oteo_translate.methods.unpaired.training import UnpairedMethod


@method
class DualGAN(UnpairedMethod):
    """Yi et al., "DualGAN: unsupervised dual learning for image-to-image translation", ICCV 2017."""

    name = "dualgan"
    summary = "Two U-Nets, each undoing the other, under Wasserstein's loss (DualGAN; Yi et al., ICCV 2017)."
    cost = 700.0
    objective = DualObjective
    recipe = Recipe(generator="unet", adversarial="wasserstein", critic_rounds=2, cycle=20.0, identity=0.0, pool=0)
