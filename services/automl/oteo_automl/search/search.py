"""The search: a cheap baseline first, then the portfolio under successive halving, then new settings around the leaders.

The next piece of work is always the one that promises most, and pieces run one to a processor. From the baseline on there is always a
model that can be published. What was done lies among the checkpoints, so that a search which is killed and begun again finds it.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Generic, TypeVar

from oteo_automl.candidates.registry import BLEND
from oteo_automl.candidates.training import Recipe
from oteo_automl.search.budget import Budget
from oteo_automl.search.pieces import PieceResult
from oteo_automl.search.proposals import Proposals
from oteo_automl.search.result import Plan
from oteo_automl.search.schedule import plan_rungs
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

_log = logging.getLogger(__name__)

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """How a search stands: the best trial, how many have ended and run, what is done now, and the share of its time that is used."""

    best: TrialRecord | None
    finished: int
    running: int
    stage: str
    fraction: float


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
    """

    def __init__(
        self,
        work: Work[R],
        executor: Executor,
        budget: Budget,
        plan: Plan,
        tracker: Tracker,
        *,
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
        self._running: dict[str, tuple[Task[PieceResult], Trial]] = {}
        self._proposals = Proposals(work.seed)
        self._gpu = work.gpu_share > 0
        self._slots = max(1, int(executor.cpus))
        self._network_slots = max(1, int(executor.gpus / work.gpu_share)) if self._gpu else self._slots
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
            while (chosen := self._next()) is not None:
                self._start(*chosen)
            if not self._running:
                break
            done, _ = self._executor.wait([task for task, _ in self._running.values()], timeout=0.3)
            for task in done:
                self._finish(task)
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
        self._remember()

    # Choosing what to do.

    def _next(self) -> tuple[Trial, int] | None:
        """Give the piece that promises most now; None where nothing is worth beginning or no processor is free."""
        running = [trial for _, trial in self._running.values()]
        networks = sum(trial.recipe is not None for trial in running)
        if len(running) >= self._slots:
            return None
        # What an earlier attempt had begun.
        for trial in self._trials:
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
        networks = [one for one in self._work.entries if not one.cheap]
        alive = [trial for trial in self._trials if trial.recipe is not None and trial.state == PAUSED and self._fits(trial)]
        unstarted = [one for one in networks if not self._tried(one.name) and self._worth(one)]
        objective = self._work.objective
        # The better half of a rung goes on, once the portfolio has come so far.
        for rung in (1, 0):
            peers = sorted(
                (t for t in self._trials if t.recipe is not None and len(t.results) > rung), key=lambda t: t.loss(objective, rung)
            )
            leaders = peers[: max(1, len(peers) // 2)]
            enough = len(peers) >= min(3, len(networks)) or not unstarted
            ready = [trial for trial in leaders if trial in alive and trial.rung == rung]
            if enough and ready:
                return ready[0], rung + 1
        if unstarted:
            return self._add(unstarted[0]), 0
        proposal = self._propose()
        if proposal is not None:
            return proposal
        # Too little time for anything new: the best of those that were stopped go on.
        best = min(alive, key=lambda trial: trial.loss(objective), default=None)
        return None if best is None else (best, best.rung + 1)

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
        if leader.recipe is None or self._epoch_seconds(entry) * leader.rungs[-1] > 0.8 * self._budget.left:
            return None
        return self._add(entry, self._proposals.ask(entry.model, leader.recipe, self._work.base_rate(entry))), 0

    def _worth(self, entry: Entry) -> bool:
        return self._budget.left > max(_SHORTEST, 3 * self._epoch_seconds(entry))

    def _fits(self, trial: Trial) -> bool:
        """Say whether at least a twentieth of what is missing can still be learnt."""
        missing = trial.rungs[-1] - (trial.last.epochs if trial.last else 0)
        return self._budget.left > max(4.0, 0.05 * missing * self._epoch_seconds(self._work.entry(trial.candidate)))

    def _epoch_seconds(self, entry: Entry) -> float:
        """Give the measured time of an epoch of this network, or a guess from others' or from none."""
        measured: dict[str, tuple[float, float]] = {}
        for trial in self._trials:
            records = trial.curve
            if records:
                known = self._work.entry(trial.candidate)
                measured[known.model] = sum(record.seconds for record in records) / len(records), self._work.cost(known)
        if entry.model in measured:
            return measured[entry.model][0]
        ratios = [seconds / cost for seconds, cost in measured.values()]
        return self._work.cost(entry) * (sum(ratios) / len(ratios) if ratios else 1.0)

    # Trials.

    def _add(self, entry: Entry, recipe: Recipe | None = None) -> Trial:
        trial = Trial(f"t{len(self._trials):03d}-{entry.name}".replace("_", "-").replace("+", "p"), entry.name)
        if not entry.cheap:
            trial.recipe = recipe or self._work.recipe(entry)
            trial.rungs = plan_rungs(
                self._work.train_count,
                budget=self._budget.total - self._budget.reserve,
                pretrained=self._work.pretrained(entry),
                epoch_seconds=self._epoch_seconds(entry),
                images=self._work.images_wanted,
                most=self._work.most_epochs,
            )
        self._trials.append(trial)
        return trial

    def _start(self, trial: Trial, rung: int) -> None:
        trial.rung, trial.state = rung, RUNNING
        entry = self._work.entry(trial.candidate)
        deadline = self._budget.deadline
        task: Task[PieceResult]
        self._running[trial.id] = (None, trial)  # type: ignore[assignment]
        self._remember()
        if trial.recipe is None:
            # A tenth of the time for each family, so that none keeps the others from their turn.
            share = 0.1 * (self._budget.total - self._budget.reserve)
            limit = min(deadline, time.time() + max(3.0, share))
            task = self._work.fit(self._executor, trial.id, entry, limit)
        else:
            target, total = trial.rungs[rung], trial.rungs[-1]
            task = self._work.train(self._executor, trial.id, rung, entry, trial.recipe, target, total, deadline - 1.0)
        self._running[trial.id] = (task, trial)

    def _finish(self, task: Task[PieceResult]) -> None:
        key = next(key for key, (known, _) in self._running.items() if known is task)
        _, trial = self._running.pop(key)
        try:
            result = task.result()
        except Exception as error:  # noqa: BLE001 (whatever one candidate raises, the others go on, and the trial says it)
            _log.warning("trial %s failed: %s: %s", trial.id, type(error).__name__, error)
            trial.state, trial.message = FAILED, f"{type(error).__name__}: {error}"
        else:
            trial.results.append(result)
            trial.seconds += result.seconds
            trial.message = result.message
            last = trial.recipe is None or trial.rung >= len(trial.rungs) - 1
            trial.state = STOPPED if result.stopped else FINISHED if last else PAUSED
            if trial.recipe is not None:
                self._tell(trial)
        trial.run_id = self._tracker.trial(self._record(trial), trial.curve) or trial.run_id
        self._remember()

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
        checkpoints.save(_TRIALS, json.dumps([trial.to_dict() for trial in self._trials]).encode())
        checkpoints.save(LEADERBOARD, json.dumps([self._record(trial).to_dict() for trial in self._ranked()]).encode())

    def _recall(self) -> None:
        stored = self._work.checkpoints.load(_TRIALS)
        for values in json.loads(stored) if stored else []:
            trial = Trial.from_dict(values)
            if trial.candidate == BLEND:
                # Made anew at the end, from what there is then.
                continue
            self._trials.append(trial)
            if trial.recipe is not None and trial.results:
                self._tell(trial)

    # Telling.

    def _say(self) -> None:
        ranked = self._ranked()
        best = ranked[0] if ranked and ranked[0].results else None
        ended = sum(trial.state in (FINISHED, FAILED, STOPPED, PRUNED) for trial in self._trials)
        names = sorted({trial.candidate for _, trial in self._running.values()})
        used = 1.0 - max(0.0, self._budget.left) / max(1.0, self._budget.total - self._budget.reserve)
        stage = f"training {', '.join(names)}" if names else "choosing"
        self._report(Snapshot(self._record(best) if best else None, ended, len(self._running), stage, used))

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
            if entry is None or not trial.results:
                continue
            entry.initial_weights = trial.results[-1].initial_weights
            if trial.recipe is not None:
                entry.batch_size, entry.epochs = trial.recipe.batch, trial.rungs[-1]
                entry.epoch_seconds = self._epoch_seconds(self._work.entry(trial.candidate))


def predicted_end(budget: Budget) -> datetime:
    """Say when all will be done if the search uses its time."""
    return datetime.fromtimestamp(budget.end, UTC)
