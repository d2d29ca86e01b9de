"""The search: a cheap baseline first, then the portfolio under successive halving, then new settings around the leaders.

Networks are measured before they are trained. The next piece of work is always the one that promises most, and pieces run one to a
processor. From the baseline on there is always a model that can be published. A trial that fails is begun again with a safer setting
where that can help, and fails alone. What was done lies among the checkpoints, so that a search which is killed and begun again finds it.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

from oteo_automl.candidates.registry import BLEND
from oteo_automl.candidates.training import Recipe
from oteo_automl.search.budget import Budget
from oteo_automl.search.extrapolation import hopeless
from oteo_automl.search.folds_queue import Folds
from oteo_automl.search.front import mark_front
from oteo_automl.search.guards import failure_message, remedy, safer, worker_died
from oteo_automl.search.pieces import FOLDS_OF, PieceResult, save_rivals
from oteo_automl.search.planner import Speeds, has_folds, network_slots, predict_end, refresh, rungs_of
from oteo_automl.search.probing import Probing
from oteo_automl.search.proposals import Proposals
from oteo_automl.search.result import Plan
from oteo_automl.search.schedule import promoted
from oteo_automl.search.tracker import Tracker
from oteo_automl.search.trial import FAILED, FINISHED, PAUSED, PRUNED, RUNNING, STOPPED, WAITING, Trial
from oteo_automl.search.work import Entry, Work
from oteo_core.errors import Internal
from oteo_core.jobs.executor import Executor, Task
from oteo_core.packages import TrialRecord

LEADERBOARD = "leaderboard.json"
"""Checkpoint of a running search's trials, best first: a JSON list of `TrialRecord.to_dict`."""

_TRIALS = "trials.json"
_LATE_SECONDS = 4.0
_SHORTEST = 8.0
_MOST_TRIALS = 200
_SETTLED = 3
_CHEAP, _CHEAP_ALONE = 0.1, 0.04

_log = logging.getLogger(__name__)

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """How a search stands.

    Parameters
    ----------
    best
        The best trial.
    finished, running
        Trials that have ended, and that run.
    stage
        What is done now.
    fraction
        Share of its time that is used.
    predicted_end
        When all will be done, seconds since 1970.
    """

    best: TrialRecord | None
    finished: int
    running: int
    stage: str
    fraction: float
    predicted_end: float


class Search(Generic[R]):
    """One search.

    Parameters
    ----------
    work
        What can be tried, and the pieces.
    executor
        Where pieces run.
    budget
        The time.
    plan
        Filled in as things are measured.
    tracker
        Told of every trial.
    check
        Called several times a second; raises where the work is to stop.
    report
        Called several times a second.
    probing
        Measures networks; what it has found already is used.
    """

    def __init__(
        self,
        work: Work[R],
        executor: Executor,
        budget: Budget,
        plan: Plan,
        tracker: Tracker,
        *,
        probing: Probing | None = None,
        check: Callable[[], None] = lambda: None,
        report: Callable[[Snapshot], None] = lambda _: None,
    ) -> None:
        self._work = work
        self._executor = executor
        self._budget = budget
        self._plan = plan
        self._tracker = tracker
        self._check = check
        self._report = report
        self._trials: list[Trial] = []
        self._folds = Folds(work)
        self._running: dict[str, tuple[Task[PieceResult], Trial]] = {}
        self._proposals = Proposals(work.seed, work.strengths, work.searched)
        self._probing = probing or Probing(work, budget)
        self._gpu = work.gpu_share > 0
        self._slots = max(1, int(executor.cpus))
        self._network_slots = network_slots(work, executor)
        self._speeds = Speeds(work, self._probing.found, {}, self._network_slots)
        self._kept = 0.0

    # The loop.

    def run(self) -> R:
        """Search until the time is up or nothing is left to try.

        Raises
        ------
        Internal
            ``NO_CANDIDATE``: not even the baseline could be fitted.
        """
        self._recall()
        while True:
            self._check()
            self._keep()
            while self._measure() or ((chosen := self._next()) is not None and self._start(*chosen)):
                pass
            tasks: list[Task[Any]] = [*(task for task, _ in self._running.values()), *self._probing.tasks]
            if not tasks:
                break
            done, _ = self._executor.wait(tasks, timeout=0.3)
            self._collect(done)
            self._say()
            # A late answer is worth more than none: the baseline is waited for, on a busy machine as long again as the budget.
            if self._budget.left < -_LATE_SECONDS and (self._answered() or self._budget.left < -max(60.0, self._budget.total)):
                self._abandon()
                break
        self._keep(force=True)
        return self._result()

    def _keep(self, *, force: bool = False) -> None:
        if force or time.monotonic() - self._kept > 2.0:
            self._budget.keep(self._work.checkpoints)
            self._kept = time.monotonic()

    def _answered(self) -> bool:
        return any(trial.results for trial in self._trials)

    def _abandon(self) -> None:
        """Leave what has not stopped by itself; its last rung, if there was one, stays."""
        for task, trial in self._running.values():
            task.cancel()
            trial.state, trial.message = STOPPED, "the time was up"
        self._running.clear()
        self._probing.stop()
        self._remember()

    # Choosing what to do.

    def _measure(self) -> bool:
        """Begin to measure a network where a processor is free; the baseline goes first."""
        busy = len(self._running) + len(self._probing.tasks)
        first = not self._answered() and not self._running and any(one.cheap for one in self._work.entries)
        if first or busy >= self._slots or self._budget.left < 2 * _SHORTEST or (entry := self._probing.next()) is None:
            return False
        self._probing.start(self._executor, entry)
        return True

    def _next(self) -> tuple[Trial, int] | None:
        """Give the piece that promises most now; None where nothing is worth beginning or no processor is free."""
        running = [trial for _, trial in self._running.values()]
        networks = sum(trial.recipe is not None for trial in running)
        if len(running) + len(self._probing.tasks) >= self._slots:
            return None
        # What an earlier attempt had begun.
        for trial in (*self._trials, *self._folds.trials):
            if trial.state == RUNNING and trial.id not in self._running:
                return trial, trial.rung
        if not self._answered():
            return self._baseline()
        if self._budget.left < _SHORTEST:
            return self._cheap(running) if self._budget.left > 0.3 * _SHORTEST else None
        cheap_running = len(running) - networks
        # With several processors both kinds advance side by side; with one, the cheap ones come first.
        if networks < self._network_slots and cheap_running >= max(1, self._slots // 2) and (network := self._network()):
            return network
        if cheap_running < max(1, self._slots // 2) and (cheap := self._cheap(running)):
            return cheap
        return self._network() if networks < self._network_slots else None

    def _baseline(self) -> tuple[Trial, int] | None:
        if any(trial.state == RUNNING for trial in self._trials):
            return None
        if self._probing.tasks and not any(one.cheap for one in self._work.entries):
            # The first network is measured before it is trained.
            return None
        others = [one for one in self._work.entries if not self._tried(one.name)]
        cheap = [one for one in others if one.cheap]
        return (self._add((cheap or others)[0]), 0) if others else None

    def _tried(self, name: str) -> bool:
        return any(trial.candidate == name for trial in self._trials)

    def _cheap(self, running: Sequence[Trial]) -> tuple[Trial, int] | None:
        busy = {self._work.entry(trial.candidate).shares for trial in running if trial.recipe is None}
        ready = {self._work.entry(trial.candidate).shares for trial in self._trials if trial.recipe is None and trial.results}
        for one in self._work.entries:
            # Its features may be on their way: waiting is quicker than computing them twice.
            if one.cheap and not self._tried(one.name) and (one.shares in ready or one.shares not in busy):
                return self._add(one), 0
        return None

    def _network(self) -> tuple[Trial, int] | None:
        if self._probing.tasks and not self._gpu:
            # A training beside it would be measured with it.
            return None
        trials = [trial for trial in self._trials if trial.recipe is not None]
        objective = self._work.objective
        unstarted = self._unstarted(trials)
        waiting = [place for place, trial in enumerate(trials) if trial.state == PAUSED and self._fits(trial)]
        losses = [[trial.loss(objective, rung) for rung in range(len(trial.results))] for trial in trials]
        place = promoted(losses, waiting, growing=bool(unstarted))
        if place is not None:
            return trials[place], len(trials[place].results)
        if unstarted:
            return self._add(unstarted[0]), 0
        partner = self._partner([trials[place] for place in waiting])
        if partner is not None:
            return partner, len(partner.results)
        proposal = self._propose()
        if proposal is not None:
            return proposal
        fold = self._folds.next(self._trials, self._epoch, self._budget.left, self._network_slots)
        if fold is not None:
            return fold, 0
        # Too little time for anything new: the best of those that were stopped go on.
        best = min((trials[place] for place in waiting), key=lambda trial: trial.loss(objective), default=None)
        return None if best is None else (best, len(best.results))

    def _unstarted(self, trials: Sequence[Trial]) -> list[Entry]:
        """Give the networks to begin with, those that can be trained on all folds first; none that would take the time of the folds of the best so far."""
        left = self._budget.left - self._folds.spoken_for(trials, self._epoch, self._speeds.waves, self._has_folds)
        found = []
        for one in self._work.entries:
            if one.cheap or self._tried(one.name) or not self._worth(one):
                continue
            if not trials or rungs_of(self._speeds, one, self._budget)[0] * self._speeds.epoch(one) < left:
                found.append(one)
        return sorted(found, key=lambda one: not has_folds(self._speeds, one, self._budget))

    def _has_folds(self, trial: Trial) -> bool:
        return has_folds(self._speeds, self._work.entry(trial.candidate), self._budget)

    def _partner(self, waiting: Sequence[Trial]) -> Trial | None:
        """Give the best network that is to be trained to its end because it may be mixed with the best of all; None where there are enough."""
        ended = sum(trial.recipe is not None and trial.state == FINISHED for trial in self._trials)
        busy = sum(trial.recipe is not None for _, trial in self._running.values())
        if not self._work.partners or ended + busy > self._work.partners:
            return None
        whole = [
            trial for trial in waiting if self._missing(trial) * self._speeds.epoch(self._work.entry(trial.candidate)) < self._budget.left
        ]
        return min(whole, key=lambda trial: trial.loss(self._work.objective), default=None)

    def _propose(self) -> tuple[Trial, int] | None:
        """Give a new trial around the leading networks where there is time to train it to its end."""
        leaders = sorted(
            (trial for trial in self._trials if trial.recipe is not None and trial.results and trial.state in (FINISHED, PAUSED)),
            key=lambda trial: trial.loss(self._work.objective),
        )
        if not leaders or len(self._trials) >= _MOST_TRIALS:
            return None
        leader = leaders[len(self._trials) % min(2, len(leaders))]
        entry = self._work.entry(leader.candidate)
        # What the other folds of the leading network will need is not for new settings.
        kept = self._folds.seconds(self._trials, self._epoch, self._budget.total - self._budget.reserve, self._network_slots)
        if leader.recipe is None or self._speeds.epoch(entry) * leader.rungs[-1] > 0.8 * (self._budget.left - kept):
            return None
        return self._add(entry, self._proposals.ask(entry.model, leader.recipe, self._work.base_rate(entry))), 0

    def _worth(self, entry: Entry) -> bool:
        return self._budget.left > max(_SHORTEST, 3 * self._speeds.epoch(entry))

    def _fits(self, trial: Trial) -> bool:
        """Say whether at least a twentieth of what is missing can still be learnt."""
        epoch = self._speeds.epoch(self._work.entry(trial.candidate))
        return self._budget.left > max(4.0, 0.05 * self._missing(trial) * epoch)

    @staticmethod
    def _missing(trial: Trial) -> int:
        return trial.rungs[-1] - (trial.last.epochs if trial.last else 0)

    # Trials.

    def _add(self, entry: Entry, recipe: Recipe | None = None) -> Trial:
        trial = Trial(f"t{len(self._trials):03d}-{entry.name}".replace("_", "-").replace("+", "p"), entry.name)
        if not entry.cheap:
            trial.recipe = recipe or self._work.recipe(entry)
            probe = self._probing.found.get(entry.model)
            if probe is not None and probe.batch < trial.recipe.batch:
                trial.recipe = replace(trial.recipe, batch=probe.batch)
            trial.rungs = rungs_of(self._speeds, entry, self._budget)
        self._trials.append(trial)
        return trial

    def _start(self, trial: Trial, rung: int) -> bool:
        trial.rung, trial.state = rung, RUNNING
        entry = self._work.entry(trial.candidate)
        deadline = self._budget.deadline
        task: Task[PieceResult]
        self._running[trial.id] = (None, trial)  # type: ignore[assignment]
        self._remember()
        if trial.recipe is None:
            # Little time for each family, so that none keeps the others from their turn, nor the networks where all take turns on one processor.
            alone = self._slots == 1 and not self._gpu and any(not one.cheap for one in self._work.entries)
            share = (_CHEAP_ALONE if alone else _CHEAP) * (self._budget.total - self._budget.reserve)
            task = self._work.fit(self._executor, trial.id, entry, max(3.0, share), deadline)
        elif trial.fold:
            task = self._work.train_fold(self._executor, trial.id, trial.fold, entry, trial.recipe, trial.rungs[-1], deadline - 1.0)
        else:
            target, total = trial.rungs[rung], trial.rungs[-1]
            task = self._work.train(self._executor, trial.id, rung, entry, trial.recipe, target, total, deadline - 1.0)
        self._running[trial.id] = (task, trial)
        return True

    def _collect(self, done: Sequence[Task[Any]]) -> None:
        probes = [task for task in done if task in self._probing.tasks]
        if probes:
            self._probing.collect(probes)
            self._complete_plan()
        for key in [key for key, (task, _) in self._running.items() if task in done]:
            task, trial = self._running.pop(key)
            try:
                self._finished(trial, task.result())
            except Exception as error:  # noqa: BLE001 (whatever one candidate raises, the others go on, and the trial says it)
                self._failed(trial, error)
            if not trial.fold:
                trial.run_id = self._tracker.trial(self._record(trial), trial.curve) or trial.run_id
            self._remember()

    def _finished(self, trial: Trial, result: PieceResult) -> None:
        trial.results.append(result)
        trial.seconds += result.seconds
        trial.message = result.message
        if trial.fold:
            trial.state = STOPPED if result.stopped else FINISHED
            if self._epoch(trial) * trial.rungs[-1] < self._budget.left and (why := self._folds.far_below(trial, self._trials)):
                self._folds.again(trial, safer(trial.recipe or Recipe()), why)
            return
        last = trial.recipe is None or trial.rung >= len(trial.rungs) - 1
        trial.state = STOPPED if result.stopped else FINISHED if last else PAUSED
        if trial.recipe is None:
            return
        self._tell(trial)
        self._learn_speed(trial)
        why = self._collapse(trial, result)
        if why and trial.restarts == 0 and not result.stopped and self._others_see(trial):
            self._again(trial, safer(trial.recipe), f"collapsed ({why})")
        elif result.hopeless:
            trial.state, trial.message = PRUNED, result.hopeless
        elif trial.state == PAUSED and (reason := self._cannot_win(trial)):
            trial.state, trial.message = PRUNED, reason
        self._complete_plan()
        save_rivals(self._work.checkpoints, {one.id: one.curve for one in self._to_beat()[:2]})

    def _to_beat(self, but: Trial | None = None) -> list[Trial]:
        """Give the networks that another must beat to be worth going on with, best first: where it may be a partner the very best need not be."""
        networks = [one for one in self._ranked() if one.curve and one is not but]
        return networks[self._work.partners :]

    @staticmethod
    def _collapse(trial: Trial, result: PieceResult) -> str:
        """Say how a network has collapsed; empty where it has not, or it is too early to tell."""
        # After an epoch or two everything may still look alike; objects take longer to be found.
        if result.collapsed and result.epochs >= _SETTLED:
            return result.message or "every answer is the same"
        if result.curve and result.curve[-1].validation_score <= 0.0 and 3 * result.epochs >= trial.rungs[-1]:
            return "it finds nothing that is right"
        return ""

    def _failed(self, trial: Trial, error: Exception) -> None:
        _log.warning("trial %s failed: %s: %s", trial.id, type(error).__name__, error)
        trial.state, trial.message = FAILED, failure_message(error)
        if worker_died(error):
            trial.lost += 1
            if trial.lost == 1 and self._budget.left >= _SHORTEST:
                # Once is bad luck, such as a neighbour's appetite; twice is its own.
                trial.state, trial.message = RUNNING, ""
                trial.notes.append("its process died; tried again")
                return
        found = remedy(error, trial.recipe, restarts=trial.restarts) if trial.recipe is not None else None
        if found is None or self._budget.left < _SHORTEST:
            return
        if found.anew:
            self._again(trial, found.recipe, found.message)
        else:
            # From where it was: it is picked up as what an earlier attempt had begun.
            trial.recipe, trial.state, trial.message = found.recipe, RUNNING, ""
            trial.notes.append(found.message)

    def _again(self, trial: Trial, recipe: Recipe, why: str) -> None:
        """Begin a trial again under a new name with safer settings; what it has left stays."""
        if self._budget.left < _SHORTEST:
            return
        if trial.fold:
            self._folds.again(trial, recipe, why)
            return
        other = self._add(self._work.entry(trial.candidate), recipe)
        other.restarts, other.rung, other.state = trial.restarts + 1, 0, RUNNING
        other.notes.append(f"begun after {trial.id} {why}: learning rate {recipe.rate:g}, full precision")
        trial.state, trial.message = FAILED, f"{why}; begun again as {other.id}"

    def _others_see(self, trial: Trial) -> bool:
        """Say whether any other trial tells things apart: else it is the data, not the trial."""
        others = [one for one in self._trials if one is not trial and one.results]
        return any(not one.results[-1].collapsed and not (one.curve and one.curve[-1].validation_score <= 0.0) for one in others)

    def _cannot_win(self, trial: Trial) -> str:
        rivals = [one.curve for one in self._to_beat(trial)]
        return hopeless(trial.curve, trial.rungs[-1], rivals, by_score=self._work.objective != "log_loss")

    def _epoch(self, trial: Trial) -> float:
        return self._speeds.epoch(self._work.entry(trial.candidate))

    def _learn_speed(self, trial: Trial) -> None:
        curve = trial.curve
        if curve:
            self._speeds.trained[self._work.entry(trial.candidate).model] = sum(one.seconds for one in curve) / len(curve)

    def _tell(self, trial: Trial) -> None:
        entry = self._work.entry(trial.candidate)
        loss = trial.loss(self._work.objective)
        if trial.recipe is not None and math.isfinite(loss):
            self._proposals.tell(entry.model, trial.recipe, loss, self._work.base_rate(entry))

    def _record(self, trial: Trial) -> TrialRecord:
        return trial.record(self._work.objective, self._work.held_out_count)

    def _ranked(self) -> list[Trial]:
        return sorted(self._trials, key=lambda trial: trial.loss(self._work.objective))

    def _remember(self) -> None:
        """Write down which trials there are and how they stand, for a rerun and for whoever asks."""
        checkpoints = self._work.checkpoints
        mark_front(self._trials, self._work.objective)
        checkpoints.save(_TRIALS, json.dumps([trial.to_dict() for trial in (*self._trials, *self._folds.trials)]).encode())
        checkpoints.save(LEADERBOARD, json.dumps([self._record(trial).to_dict() for trial in self._ranked()]).encode())

    def _recall(self) -> None:
        stored = self._work.checkpoints.load(_TRIALS)
        for values in json.loads(stored) if stored else []:
            trial = Trial.from_dict(values)
            if trial.candidate == BLEND:
                # Made anew at the end, from what there is then.
                continue
            if trial.fold:
                self._folds.trials.append(trial)
                continue
            if trial.recipe is None and trial.results and FOLDS_OF in trial.results[-1].parameters:
                continue
            self._trials.append(trial)
            if trial.recipe is not None and trial.results:
                self._tell(trial)
                self._learn_speed(trial)

    # Telling.

    def _say(self) -> None:
        ranked = self._ranked()
        best = ranked[0] if ranked and ranked[0].results else None
        ended = sum(trial.state in (FINISHED, FAILED, STOPPED, PRUNED) for trial in self._trials)
        names = sorted({trial.candidate for _, trial in self._running.values()})
        used = 1.0 - max(0.0, self._budget.left) / max(1.0, self._budget.total - self._budget.reserve)
        stage = f"training {', '.join(names)}" if names else "measuring" if self._probing.tasks else "choosing"
        end = predict_end(self._budget, time.time(), self._remaining())
        self._report(Snapshot(self._record(best) if best else None, ended, len(self._running), stage, used, end))

    def _remaining(self) -> float | None:
        """Guess the seconds that the search still needs; None where it will use all its time."""
        failed = {trial.candidate for trial in self._trials if trial.state == FAILED}
        if any(not one.cheap and one.name not in failed and self._worth(one) for one in self._work.entries):
            return None
        ended = [trial.seconds for trial in self._trials if trial.recipe is None and trial.results]
        each = sum(ended) / len(ended) if ended else 0.1 * self._budget.total
        waiting = sum(one.cheap and not self._tried(one.name) for one in self._work.entries) + len(self._running)
        return math.ceil(waiting / self._slots) * each

    def _result(self) -> R:
        for trial in self._trials:
            if trial.state in (PAUSED, WAITING):
                trial.state, trial.message = PRUNED, trial.message or "others were better at the same epoch"
        if not self._answered():
            reasons = "; ".join(f"{trial.candidate}: {trial.message}" for trial in self._trials)
            raise Internal(f"nothing could be fitted to this dataset ({reasons or 'the time was up'})", reason="NO_CANDIDATE")
        self._complete_plan()
        before = len(self._trials)
        result = self._work.result(self._trials, self._plan, self._budget.spent)
        for number, trial in enumerate(self._trials):
            if trial.state == PRUNED or number >= before:
                trial.run_id = self._tracker.trial(self._record(trial), trial.curve) or trial.run_id
        self._remember()
        return result

    def records(self) -> list[TrialRecord]:
        """Give everything that was tried, best first."""
        return [self._record(trial) for trial in self._ranked()]

    def _complete_plan(self) -> None:
        """Put measured times in the plan."""
        planned = {one.name: one for one in self._plan.candidates}
        for trial in self._trials:
            entry = planned.get(trial.candidate)
            if entry is not None and trial.results:
                entry.initial_weights = trial.results[-1].initial_weights
        refresh(self._plan, self._work, self._speeds, self._budget, self._probing.messages)


def predicted_end(budget: Budget) -> datetime:
    """Say when all will be done if the search uses its time."""
    return datetime.fromtimestamp(budget.end, UTC)
