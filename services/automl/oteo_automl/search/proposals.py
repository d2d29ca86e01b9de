"""New settings around the leaders, from Optuna."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from oteo_automl.candidates.network import PORTFOLIO
from oteo_automl.candidates.training import Recipe

FACTOR = 4.0


class Proposals:
    """Ask for settings, tell how they did (tree-structured Parzen estimator).

    The study lives in memory: it is told again of every trial when a search is taken up again.

    Parameters
    ----------
    seed
        Seed of the sampler.
    objective
        ``"log_loss"`` is minimised, everything else maximised.
    """

    def __init__(self, seed: int, objective: str) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        direction = "minimize" if objective == "log_loss" else "maximize"
        self._study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=4), direction=direction)
        self._networks: list[str] = list(PORTFOLIO)

    def _space(self) -> dict[str, BaseDistribution]:
        return {
            "network": CategoricalDistribution(self._networks),
            "rate": FloatDistribution(1 / FACTOR, FACTOR, log=True),
            "strength": FloatDistribution(0.3, 1.8),
            "smoothing": FloatDistribution(0.0, 0.2),
            "drop": FloatDistribution(0.0, 0.5),
            "weight_decay": FloatDistribution(0.005, 0.3, log=True),
        }

    def tell(self, recipe: Recipe, value: float) -> None:
        """Say how settings did."""
        base = PORTFOLIO[recipe.network].learning_rate
        parameters = {
            "network": recipe.network,
            "rate": min(FACTOR, max(1 / FACTOR, recipe.learning_rate / base)),
            "strength": min(1.8, max(0.3, recipe.strength)),
            "smoothing": recipe.smoothing,
            "drop": recipe.drop,
            "weight_decay": recipe.weight_decay,
        }
        self._study.add_trial(optuna.create_trial(params=parameters, distributions=self._space(), value=value))

    def ask(self, leaders: Sequence[Recipe]) -> Recipe:
        """Give new settings for one of the leading networks."""
        allowed = [recipe.network for recipe in leaders]
        trial = self._study.ask(self._space())
        # The sampler knows all networks; one that does not lead is replaced by the leader.
        network = trial.params["network"] if trial.params["network"] in allowed else allowed[0]
        base = next(recipe for recipe in leaders if recipe.network == network)
        self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
        return replace(
            base,
            learning_rate=PORTFOLIO[network].learning_rate * trial.params["rate"],
            strength=trial.params["strength"],
            smoothing=trial.params["smoothing"],
            drop=trial.params["drop"],
            weight_decay=trial.params["weight_decay"],
            seed=base.seed + trial.number + 1,
        )
