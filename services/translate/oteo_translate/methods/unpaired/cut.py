"""CUT."""

from __future__ import annotations

from oteo_translate.methods.base import method
from oteo_translate.methods.unpaired.contrast import ContrastiveObjective
from oteo_translate.methods.unpaired.recipe import Recipe
from oteo_translate.methods.unpaired.training import UnpairedMethod


@method
class CUT(UnpairedMethod):
    """Park et al., "Contrastive learning for unpaired image-to-image translation", ECCV 2020."""

    name = "cut"
    summary = "One generator, held by contrast between patches of source and translation (CUT; Park et al., ECCV 2020)."
    cost = 600.0
    objective = ContrastiveObjective
    recipe = Recipe(contrast=1.0, identity=1.0, pool=0, critic_norm=True)
