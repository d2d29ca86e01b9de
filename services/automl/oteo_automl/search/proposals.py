"""New settings around the leaders, from Optuna."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from oteo_automl.candidates.training import Recipe

SEARCHED = ("rate", "decay", "strength", "smoothing", "drop", "mix")
"""Fields of a recipe that can be varied."""

_FACTOR = 4.0


class Proposals:
    """Ask for settings of a network, tell how they did (tree-structured Parzen estimator).

    The studies live in memory, one for each architecture: they are told again of every trial when a search is taken up again.

    Parameters
    ----------
    seed
        Seed of the samplers.
    strengths
        Names of augmentations to choose from.
    searched
        Fields of the recipe that are varied; the others stay as the leader has them.
    """

    def __init__(self, seed: int, strengths: Sequence[str] = ("light", "strong", "turned"), searched: Sequence[str] = SEARCHED) -> None:
        self._strengths = tuple(strengths)
        self._searched = tuple(searched)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._seed = seed
        self._studies: dict[str, optuna.Study] = {}

    def _study(self, architecture: str) -> optuna.Study:
        if architecture not in self._studies:
            sampler = optuna.samplers.TPESampler(seed=self._seed % 2**32, n_startup_trials=3)
            self._studies[architecture] = optuna.create_study(sampler=sampler, direction="minimize")
        return self._studies[architecture]

    def _space(self) -> dict[str, BaseDistribution]:
        space: dict[str, BaseDistribution] = {
            "rate": FloatDistribution(1 / _FACTOR, _FACTOR, log=True),
            "decay": FloatDistribution(0.005, 0.3, log=True),
            "strength": CategoricalDistribution(self._strengths),
            "smoothing": FloatDistribution(0.0, 0.2),
            "drop": FloatDistribution(0.0, 0.5),
            "mix": CategoricalDistribution((0.0, 0.2)),
        }
        return {name: space[name] for name in self._searched}

    def tell(self, architecture: str, recipe: Recipe, loss: float, base: float) -> None:
        """Say how settings did; smaller is better. `base` is the network's usual learning rate."""
        parameters = {
            "rate": min(_FACTOR, max(1 / _FACTOR, recipe.rate / base)),
            "decay": min(0.3, max(0.005, recipe.decay)),
            "strength": recipe.strength if recipe.strength in self._strengths else self._strengths[0],
            "smoothing": min(0.2, recipe.smoothing),
            "drop": min(0.5, recipe.drop),
            "mix": 0.2 if recipe.mix > 0 else 0.0,
        }
        chosen = {name: parameters[name] for name in self._searched}
        self._study(architecture).add_trial(optuna.create_trial(params=chosen, distributions=self._space(), value=loss))

    def ask(self, architecture: str, base: Recipe, base_rate: float) -> Recipe:
        """Give new settings for a network of this usual learning rate; its batch is kept."""
        study = self._study(architecture)
        trial = study.ask(self._space())
        # It is told by `tell`, when and if it has a figure.
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
        drawn = trial.params
        changed: dict[str, Any] = {name: drawn[name] for name in ("strength", "mix") if name in drawn}
        changed |= {name: round(drawn[name], 3) for name in ("smoothing", "drop") if name in drawn}
        if "rate" in drawn:
            changed["rate"] = float(f"{base_rate * drawn['rate']:.3g}")
        if "decay" in drawn:
            changed["decay"] = float(f"{drawn['decay']:.3g}")
        return replace(base, **changed)
