"""CycleGAN."""

from __future__ import annotations

from oteo_translate.methods.base import method
from oteo_translate.methods.unpaired.cycle import CycleObjective
from oteo_translate.methods.unpaired.recipe import Recipe
from oteo_translate.methods.unpaired.training import UnpairedMethod


@method
class CycleGAN(UnpairedMethod):
    """Zhu et al., "Unpaired image-to-image translation using cycle-consistent adversarial networks", ICCV 2017."""

    name = "cyclegan"
    summary = "Two generators, each undoing the other, taught by discriminators (CycleGAN; Zhu et al., ICCV 2017)."
    cost = 900.0
    objective = CycleObjective
    recipe = Recipe()
