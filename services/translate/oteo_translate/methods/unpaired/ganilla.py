"""GANILLA."""

from __future__ import annotations

from oteo_translate.methods.base import method
from oteo_translate.methods.unpaired.cycle import CycleObjective
from oteo_translate.methods.unpaired.recipe import Recipe
from oteo_translate.methods.unpaired.training import UnpairedMethod


@method
class Ganilla(UnpairedMethod):
    """Hicsonmez et al., "GANILLA: generative adversarial networks for image to illustration translation", Image and Vision Computing 95, 2020."""

    name = "ganilla"
    summary = "CycleGAN with a generator that keeps low-level features (GANILLA; Hicsonmez et al., Image and Vision Computing 2020)."
    cost = 900.0
    objective = CycleObjective
    recipe = Recipe(generator="ganilla")
