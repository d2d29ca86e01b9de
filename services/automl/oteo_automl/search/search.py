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
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

from oteo_automl.candidates.registry import BLEND
from oteo_automl.candidates.training import Recipe
from oteo_automl.search.agenda import SHORTEST, Agenda
from oteo_automl.search.budget import Budget
from oteo_automl.search.extrapolation import hopeless
from oteo_automl.search.folds_queue import Folds
from oteo_automl.search.front import mark_front
from oteo_automl.search.guards import failure_message, remedy, safer, worker_died
from oteo_automl.search.pieces import FOLDS_OF, PieceResult, save_rivals
from oteo_automl.search.planner import Speeds, network_slots, predict_end, refresh
from oteo_automl.search.probing import Probing
from oteo_automl.search.proposals import Proposals
from oteo_automl.search.result import Plan
from oteo_automl.search.tracker import Tracker
from oteo_automl.search.trial import FAILED, FINISHED, PAUSED, PRUNED, RUNNING, STOPPED, WAITING, Trial
from oteo_automl.search.work import Work
from oteo_core.errors import Internal
from oteo_core.jobs.executor import Executor, Task
from oteo_core.packages import TrialRecord

LEADERBOARD = "leaderboard.json"
"""Checkpoint of a running search's trials, best first: a JSON list of `TrialRecord.to_dict`."""

_TRIALS = "trials.json"
_LATE_SECONDS = 4.0
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
        self._slots = max(1, int(executor.cpus))
        side_by_side = network_slots(work, executor)
        self._speeds = Speeds(work, self._probing.found, {}, side_by_side)
        self._kept = 0.0
        self.agenda = Agenda(
            work,
            budget,
            self._trials,
            self._folds,
            self._running,
            self._proposals,
            self._probing,
            self._speeds,
            self._slots,
            side_by_side,
        )

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
            while self._measure() or ((chosen := self.agenda.next()) is not None and self._start(*chosen)):
                pass
            tasks: list[Task[Any]] = [*(task for task, _ in self._running.values()), *self._probing.tasks]
            if not tasks:
                break
            done, _ = self._executor.wait(tasks, timeout=0.3)
            self._collect(done)
            self._say()
            # A late answer is worth more than none: the baseline is waited for, on a busy machine as long again as the budget.
            if self._budget.left < -_LATE_SECONDS and (self.agenda.answered() or self._budget.left < -max(60.0, self._budget.total)):
                self._abandon()
                break
        self._keep(force=True)
        return self._result()

    def _keep(self, *, force: bool = False) -> None:
        if force or time.monotonic() - self._kept > 2.0:
            self._budget.keep(self._work.checkpoints)
            self._kept = time.monotonic()

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
        first = not self.agenda.answered() and not self._running and any(one.cheap for one in self._work.entries)
        if first or busy >= self._slots or self._budget.left < 2 * SHORTEST or (entry := self._probing.next()) is None:
            return False
        self._probing.start(self._executor, entry)
        return True

    # Trials.

    def _start(self, trial: Trial, rung: int) -> bool:
        trial.rung, trial.state = rung, RUNNING
        entry = self._work.entry(trial.candidate)
        deadline = self._budget.deadline
        task: Task[PieceResult]
        self._running[trial.id] = (None, trial)  # type: ignore[assignment]
        self._remember()
        if trial.recipe is None:
            # Little time for each family, so that none keeps the others from their turn, nor the networks where all take turns on one processor.
            alone = self._slots == 1 and self._work.gpu_share == 0 and any(not one.cheap for one in self._work.entries)
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
            if self.agenda.epoch(trial) * trial.rungs[-1] < self._budget.left and (why := self._folds.far_below(trial, self._trials)):
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
            if trial.lost == 1 and self._budget.left >= SHORTEST:
                # Once is bad luck, such as a neighbour's appetite; twice is its own.
                trial.state, trial.message = RUNNING, ""
                trial.notes.append("its process died; tried again")
                return
        found = remedy(error, trial.recipe, restarts=trial.restarts) if trial.recipe is not None else None
        if found is None or self._budget.left < SHORTEST:
            return
        if found.anew:
            self._again(trial, found.recipe, found.message)
        else:
            # From where it was: it is picked up as what an earlier attempt had begun.
            trial.recipe, trial.state, trial.message = found.recipe, RUNNING, ""
            trial.notes.append(found.message)

    def _again(self, trial: Trial, recipe: Recipe, why: str) -> None:
        """Begin a trial again under a new name with safer settings; what it has left stays."""
        if self._budget.left < SHORTEST:
            return
        if trial.fold:
            self._folds.again(trial, recipe, why)
            return
        other = self.agenda.add(self._work.entry(trial.candidate), recipe)
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
        if any(not one.cheap and one.name not in failed and self.agenda.worth(one) for one in self._work.entries):
            return None
        ended = [trial.seconds for trial in self._trials if trial.recipe is None and trial.results]
        each = sum(ended) / len(ended) if ended else 0.1 * self._budget.total
        waiting = sum(one.cheap and not self.agenda.tried(one.name) for one in self._work.entries) + len(self._running)
        return math.ceil(waiting / self._slots) * each

    def _result(self) -> R:
        for trial in self._trials:
            if trial.state in (PAUSED, WAITING):
                trial.state, trial.message = PRUNED, trial.message or "others were better at the same epoch"
        if not self.agenda.answered():
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
