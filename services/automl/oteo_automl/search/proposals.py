"""New settings around the leaders, from Optuna."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from oteo_automl.candidates.training import Recipe

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
    """

    def __init__(self, seed: int, strengths: Sequence[str] = ("light", "strong", "turned")) -> None:
        self._strengths = tuple(strengths)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._seed = seed
        self._studies: dict[str, optuna.Study] = {}

    def _study(self, architecture: str) -> optuna.Study:
        if architecture not in self._studies:
            sampler = optuna.samplers.TPESampler(seed=self._seed % 2**32, n_startup_trials=3)
            self._studies[architecture] = optuna.create_study(sampler=sampler, direction="minimize")
        return self._studies[architecture]

    def _space(self) -> dict[str, BaseDistribution]:
        return {
            "rate": FloatDistribution(1 / _FACTOR, _FACTOR, log=True),
            "decay": FloatDistribution(0.005, 0.3, log=True),
            "strength": CategoricalDistribution(self._strengths),
            "smoothing": FloatDistribution(0.0, 0.2),
            "drop": FloatDistribution(0.0, 0.5),
            "mix": CategoricalDistribution((0.0, 0.2)),
        }

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
        self._study(architecture).add_trial(optuna.create_trial(params=parameters, distributions=self._space(), value=loss))

    def ask(self, architecture: str, base: Recipe, base_rate: float) -> Recipe:
        """Give new settings for a network of this usual learning rate; its batch is kept."""
        study = self._study(architecture)
        trial = study.ask(self._space())
        # It is told by `tell`, when and if it has a figure.
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
        drawn = trial.params
        return replace(
            base,
            rate=float(f"{base_rate * drawn['rate']:.3g}"),
            decay=float(f"{drawn['decay']:.3g}"),
            strength=str(drawn["strength"]),
            smoothing=round(drawn["smoothing"], 3),
            drop=round(drawn["drop"], 3),
            mix=float(drawn["mix"]),
        )
