"""Which folds the leading network of a search is still to be trained on, and when: after new settings, with time kept for it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from oteo_automl.candidates.training import Recipe
from oteo_automl.search.guards import check_folds
from oteo_automl.search.pieces import fold_name
from oteo_automl.search.schedule import SPARE
from oteo_automl.search.trial import FAILED, FINISHED, PAUSED, RUNNING, Trial
from oteo_automl.search.work import Work

_BEHIND = 1.5
"""Share of the best trial's loss by which a network may be worse and its folds still be worth their time: the mean of five has about half of the loss of one
of them where images are few (docs/training.md), and it sees other things than classifiers on features do."""

_SHARE = 0.5
"""Part of a search that the folds of a network may take."""


class Folds:
    """Trainings of a search's leading network on the other folds; each is a trial that stands in no list of trials.

    Parameters
    ----------
    work
        What can be tried.

    Attributes
    ----------
    trials
        Those begun so far.
    """

    def __init__(self, work: Work[Any]) -> None:
        self._work = work
        self.trials: list[Trial] = []

    def next(self, trials: Sequence[Trial], epoch: Callable[[Trial], float], left: float, slots: int) -> Trial | None:
        """Give the next training to begin; None where none is, or its time would not be enough.

        Parameters
        ----------
        trials
            Of the search.
        epoch
            Seconds of an epoch of a trial's network.
        left
            Seconds.
        slots
            Networks that are trained side by side.
        """
        leader = self._leader(trials)
        if leader is None or leader.recipe is None:
            return None
        begun = {trial.fold for trial in self.trials if trial.parent == leader.id}
        missing = [number for number in self._work.other_folds if number not in begun]
        # Half of them at the beginning, or none; later what still fits.
        waves = 1 if begun else math.ceil(0.5 * len(missing) / slots)
        if not missing or waves * self._training(leader, epoch) > left:
            return None
        trial = Trial(
            fold_name(leader.id, missing[0]),
            leader.candidate,
            recipe=leader.recipe,
            rungs=[leader.rungs[-1]],
            rung=0,
            parent=leader.id,
            fold=missing[0],
        )
        self.trials.append(trial)
        return trial

    def seconds(self, trials: Sequence[Trial], epoch: Callable[[Trial], float], whole: float, slots: int) -> float:
        """Give the seconds to keep for the folds of the leading network; 0 where they would take too much of the `whole` search, or are done."""
        leader = self._leader(trials)
        if leader is None:
            return 0.0
        begun = {trial.fold for trial in self.trials if trial.parent == leader.id}
        waves = math.ceil(sum(number not in begun for number in self._work.other_folds) / slots)
        needed = waves * self._training(leader, epoch)
        return needed if needed <= _SHARE * whole else 0.0

    def spoken_for(self, trials: Sequence[Trial], epoch: Callable[[Trial], float], waves: int, planned: Callable[[Trial], bool]) -> float:
        """Give the seconds that the best network so far needs to come to its end and for its other folds, where its plan left time for them (`planned`)."""
        networks = [trial for trial in trials if trial.recipe is not None and trial.results and trial.state in (PAUSED, FINISHED)]
        best = min(networks, key=lambda trial: trial.loss(self._work.objective), default=None)
        if best is None or self.trials or not planned(best):
            return 0.0
        missing = best.rungs[-1] - (best.last.epochs if best.last else 0)
        return missing * epoch(best) + waves * self._training(best, epoch)

    def _leader(self, trials: Sequence[Trial]) -> Trial | None:
        """Give the network whose folds are trained: the one that was begun with, else the best that has come to its end."""
        if not self._work.other_folds:
            return None
        objective = self._work.objective
        begun = {trial.parent for trial in self.trials}
        networks = [
            trial for trial in trials if trial.recipe is not None and trial.results and (trial.state == FINISHED or trial.id in begun)
        ]
        leader = min(networks, key=lambda trial: (trial.id not in begun, trial.loss(objective)), default=None)
        if leader is None or leader.results[-1].collapsed:
            return None
        best = min(trial.loss(objective) for trial in trials if trial.results)
        return leader if leader.loss(objective) <= best + _BEHIND * abs(best) else None

    @staticmethod
    def _training(leader: Trial, epoch: Callable[[Trial], float]) -> float:
        return SPARE * leader.rungs[-1] * epoch(leader)

    def far_below(self, trial: Trial, trials: Sequence[Trial]) -> str:
        """Say why a fold that has ended should be begun again: it has collapsed, or lies far below its siblings; empty where it need not, or was once."""
        objective = self._work.objective
        others = [one for one in (*trials, *self.trials) if one is not trial and one.results and trial.parent in (one.id, one.parent)]
        if trial.restarts or not others:
            return ""
        siblings = [*others, trial]
        check = check_folds([one.loss(objective) for one in siblings], [one.results[-1].collapsed for one in siblings])
        last = len(siblings) - 1
        return "failed" if last in check.broken else "was far below its siblings" if last in check.outlying else ""

    def again(self, trial: Trial, recipe: Recipe, why: str) -> None:
        """Begin a fold again, once, with a safer setting."""
        if trial.restarts:
            trial.state = FAILED
            return
        other = Trial(
            fold_name(trial.parent, trial.fold, again=True),
            trial.candidate,
            recipe=recipe,
            rungs=list(trial.rungs),
            rung=0,
            state=RUNNING,
            restarts=1,
            parent=trial.parent,
            fold=trial.fold,
        )
        other.notes.append(f"begun after {trial.id} {why}: learning rate {recipe.rate:g}, full precision")
        trial.state, trial.message = FAILED, f"{why}; begun again as {other.id}"
        trial.results.clear()
        self.trials.append(other)
