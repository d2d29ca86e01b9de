"""What a search does next: the piece of work that promises most, of what there is time for.

The baseline first, then cheap classifiers and networks side by side; networks under successive halving, then a partner for a mixture, new settings around
the leaders, the leader's other folds, and what was stopped before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from oteo_automl.candidates.training import Recipe
from oteo_automl.search.budget import Budget
from oteo_automl.search.folds_queue import Folds
from oteo_automl.search.planner import Speeds, has_folds, rungs_of
from oteo_automl.search.probing import Probing
from oteo_automl.search.proposals import Proposals
from oteo_automl.search.schedule import promoted
from oteo_automl.search.trial import FINISHED, PAUSED, RUNNING, Trial
from oteo_automl.search.work import Entry, Work
from oteo_core.jobs.executor import Task

SHORTEST = 8.0
"""Seconds below which nothing is begun but cheap classifiers."""

_MOST_TRIALS = 200


@dataclass(slots=True)
class Agenda:
    """Chooses among a search's trials, and adds new ones; begins none.

    Parameters
    ----------
    work, budget
        What can be tried, and the time.
    trials, folds, running
        The search's own, looked at as they grow; `running` by the trial's id.
    proposals, probing, speeds
        New settings; measurements; seconds of an epoch.
    slots, network_slots
        Pieces, and trainings of networks, side by side.
    """

    work: Work[Any]
    budget: Budget
    trials: list[Trial]
    folds: Folds
    running: Mapping[str, tuple[Task[Any], Trial]]
    proposals: Proposals
    probing: Probing
    speeds: Speeds
    slots: int
    network_slots: int

    def answered(self) -> bool:
        """Say whether any trial has left a result."""
        return any(trial.results for trial in self.trials)

    def epoch(self, trial: Trial) -> float:
        """Give the seconds of an epoch of a trial's network."""
        return self.speeds.epoch(self.work.entry(trial.candidate))

    def next(self) -> tuple[Trial, int] | None:
        """Give the piece that promises most now; None where nothing is worth beginning or no processor is free."""
        running = [trial for _, trial in self.running.values()]
        networks = sum(trial.recipe is not None for trial in running)
        if len(running) + len(self.probing.tasks) >= self.slots:
            return None
        # What an earlier attempt had begun.
        for trial in (*self.trials, *self.folds.trials):
            if trial.state == RUNNING and trial.id not in self.running:
                return trial, trial.rung
        if not self.answered():
            return self._baseline()
        if self.budget.left < SHORTEST:
            return self._cheap(running) if self.budget.left > 0.3 * SHORTEST else None
        cheap_running = len(running) - networks
        # With several processors both kinds advance side by side; with one, the cheap ones come first.
        if networks < self.network_slots and cheap_running >= max(1, self.slots // 2) and (network := self._network()):
            return network
        if cheap_running < max(1, self.slots // 2) and (cheap := self._cheap(running)):
            return cheap
        return self._network() if networks < self.network_slots else None

    def _baseline(self) -> tuple[Trial, int] | None:
        if any(trial.state == RUNNING for trial in self.trials):
            return None
        if self.probing.tasks and not any(one.cheap for one in self.work.entries):
            # The first network is measured before it is trained.
            return None
        others = [one for one in self.work.entries if not self.tried(one.name)]
        cheap = [one for one in others if one.cheap]
        return (self.add((cheap or others)[0]), 0) if others else None

    def tried(self, name: str) -> bool:
        """Say whether a candidate has been begun with."""
        return any(trial.candidate == name for trial in self.trials)

    def _cheap(self, running: Sequence[Trial]) -> tuple[Trial, int] | None:
        busy = {self.work.entry(trial.candidate).shares for trial in running if trial.recipe is None}
        ready = {self.work.entry(trial.candidate).shares for trial in self.trials if trial.recipe is None and trial.results}
        for one in self.work.entries:
            # Its features may be on their way: waiting is quicker than computing them twice.
            if one.cheap and not self.tried(one.name) and (one.shares in ready or one.shares not in busy):
                return self.add(one), 0
        return None

    def _network(self) -> tuple[Trial, int] | None:
        if self.probing.tasks and self.work.gpu_share == 0:
            # A training beside it would be measured with it.
            return None
        trials = [trial for trial in self.trials if trial.recipe is not None]
        objective = self.work.objective
        unstarted = self.unstarted(trials)
        waiting = [place for place, trial in enumerate(trials) if trial.state == PAUSED and self._fits(trial)]
        losses = [[trial.loss(objective, rung) for rung in range(len(trial.results))] for trial in trials]
        place = promoted(losses, waiting, growing=bool(unstarted))
        if place is not None:
            return trials[place], len(trials[place].results)
        if unstarted:
            return self.add(unstarted[0]), 0
        partner = self._partner([trials[place] for place in waiting])
        if partner is not None:
            return partner, len(partner.results)
        proposal = self._propose()
        if proposal is not None:
            return proposal
        fold = self.folds.next(self.trials, self.epoch, self.budget.left, self.network_slots)
        if fold is not None:
            return fold, 0
        # Too little time for anything new: the best of those that were stopped go on.
        best = min((trials[place] for place in waiting), key=lambda trial: trial.loss(objective), default=None)
        return None if best is None else (best, len(best.results))

    def unstarted(self, trials: Sequence[Trial]) -> list[Entry]:
        """Give the networks to begin with, those that can be trained on all folds first; none that would take the time of the folds of the best so far."""
        left = self.budget.left - self.folds.spoken_for(trials, self.epoch, self.speeds.waves, self._has_folds)
        found = []
        for one in self.work.entries:
            if one.cheap or self.tried(one.name) or not self.worth(one):
                continue
            if not trials or rungs_of(self.speeds, one, self.budget)[0] * self.speeds.epoch(one) < left:
                found.append(one)
        return sorted(found, key=lambda one: not has_folds(self.speeds, one, self.budget))

    def _has_folds(self, trial: Trial) -> bool:
        return has_folds(self.speeds, self.work.entry(trial.candidate), self.budget)

    def _partner(self, waiting: Sequence[Trial]) -> Trial | None:
        """Give the best network that is to be trained to its end because it may be mixed with the best of all; None where there are enough."""
        ended = sum(trial.recipe is not None and trial.state == FINISHED for trial in self.trials)
        busy = sum(trial.recipe is not None for _, trial in self.running.values())
        if not self.work.partners or ended + busy > self.work.partners:
            return None
        whole = [
            trial for trial in waiting if self._missing(trial) * self.speeds.epoch(self.work.entry(trial.candidate)) < self.budget.left
        ]
        return min(whole, key=lambda trial: trial.loss(self.work.objective), default=None)

    def _propose(self) -> tuple[Trial, int] | None:
        """Give a new trial around the leading networks where there is time to train it to its end."""
        leaders = sorted(
            (trial for trial in self.trials if trial.recipe is not None and trial.results and trial.state in (FINISHED, PAUSED)),
            key=lambda trial: trial.loss(self.work.objective),
        )
        if not leaders or len(self.trials) >= _MOST_TRIALS:
            return None
        leader = leaders[len(self.trials) % min(2, len(leaders))]
        entry = self.work.entry(leader.candidate)
        # What the other folds of the leading network will need is not for new settings.
        kept = self.folds.seconds(self.trials, self.epoch, self.budget.total - self.budget.reserve, self.network_slots)
        if leader.recipe is None or self.speeds.epoch(entry) * leader.rungs[-1] > 0.8 * (self.budget.left - kept):
            return None
        return self.add(entry, self.proposals.ask(entry.model, leader.recipe, self.work.base_rate(entry))), 0

    def worth(self, entry: Entry) -> bool:
        """Say whether there is time enough left to begin with a network."""
        return self.budget.left > max(SHORTEST, 3 * self.speeds.epoch(entry))

    def _fits(self, trial: Trial) -> bool:
        """Say whether at least a twentieth of what is missing can still be learnt."""
        epoch = self.speeds.epoch(self.work.entry(trial.candidate))
        return self.budget.left > max(4.0, 0.05 * self._missing(trial) * epoch)

    @staticmethod
    def _missing(trial: Trial) -> int:
        return trial.rungs[-1] - (trial.last.epochs if trial.last else 0)

    def add(self, entry: Entry, recipe: Recipe | None = None) -> Trial:
        """Add a trial of a candidate; of a network by the recipe that is tried first, unless another is given."""
        trial = Trial(f"t{len(self.trials):03d}-{entry.name}".replace("_", "-").replace("+", "p"), entry.name)
        if not entry.cheap:
            trial.recipe = recipe or self.work.recipe(entry)
            probe = self.probing.found.get(entry.model)
            if probe is not None and probe.batch < trial.recipe.batch:
                trial.recipe = replace(trial.recipe, batch=probe.batch)
            trial.rungs = rungs_of(self.speeds, entry, self.budget)
        self.trials.append(trial)
        return trial
