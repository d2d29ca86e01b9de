"""FastCUT."""

from __future__ import annotations

from oteo_translate.methods.base import method
from oteo_translate.methods.unpaired.contrast import ContrastiveObjective
from oteo_translate.methods.unpaired.recipe import Recipe
from oteo_translate.methods.unpaired.training import UnpairedMethod


@method
class FastCUT(UnpairedMethod):
    """Park et al., ECCV 2020, section 4: CUT without identity, with a heavier contrast and with mirrored batches."""

    name = "fastcut"
    summary = "CUT at half the work: heavier contrast in place of identity, and mirrored batches (FastCUT; Park et al., ECCV 2020)."
    cost = 400.0
    objective = ContrastiveObjective
    recipe = Recipe(contrast=10.0, identity=0.0, equivariance=True, pool=0, critic_norm=True)
