"""Successive halving over baselines and networks, then a search around the leaders, within a budget.

Tasks run one to a processor. The next task is always the one that promises most: baselines first, so that there is an answer; then the first rung of each network of the
portfolio; then longer rungs for the better half (Li et al., ASHA, MLSys 2020); then new settings around the leaders, from Optuna. Results lie in the vault, so that a search that is
killed and begun again finds what it had.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from oteo_automl.candidates.base import Fitted, better, score, unpack_module
from oteo_automl.candidates.network import PORTFOLIO, planned_epochs
from oteo_automl.candidates.registry import BASELINES
from oteo_automl.candidates.task import TaskSummary, TrialTask, run_trial
from oteo_automl.candidates.training import Recipe
from oteo_automl.candidates.vote import ImageVote
from oteo_automl.evaluation.calibration import fit_temperature, softmax
from oteo_automl.search.budget import Budget
from oteo_automl.search.data import TrainingData
from oteo_automl.search.proposals import Proposals
from oteo_automl.search.result import EpochRecord, FittedCandidate, SearchResult
from oteo_automl.search.tracker import Tracker
from oteo_automl.search.vault import Vault
from oteo_core.errors import Internal, OteoError
from oteo_core.jobs.executor import Executor, Task
from oteo_core.packages.manifest import MetricValue, TrialRecord

LOG = logging.getLogger(__name__)
LAST_RUNG = 3
SHORTEST_NETWORK = 12.0
"""Seconds that must be left for a network's training to be begun."""
PLAN = "trials.json"


@dataclass
class Trial:
    """One trial and what is known of it."""

    id: str
    candidate: str
    recipe: Recipe | None
    number: int
    rung: int = -1
    summaries: list[TaskSummary] = field(default_factory=list)
    seconds: float = 0.0
    state: str = "running"
    message: str = ""
    run_id: str = ""

    def value(self, objective: str) -> float | None:
        """Give the objective on the validation part after the last rung that ended."""
        return self.summaries[-1].scores.get(objective, self.summaries[-1].scores["log_loss"]) if self.summaries else None


@dataclass(frozen=True)
class Snapshot:
    """How a search stands: for whoever shows progress."""

    best: TrialRecord | None
    finished: int
    running: int
    stage: str
    elapsed: float


class Search:
    """A search over candidates.

    Parameters
    ----------
    data
        The prepared images, as they lie in the vault.
    vault
        Data, states and results.
    executor
        Where tasks run.
    budget
        The time.
    candidates
        Names, from `registry.choose`.
    objective
        ``"log_loss"``, ``"auroc"``, ``"balanced_accuracy"``, ``"accuracy"`` or ``"f1"``.
    seed
        Seed of every draw.
    pretrained_uri
        Where pretrained weights lie; empty: from scratch.
    tracker
        Told of every trial.
    check
        Called several times a second; raises where the work is to stop.
    report
        Called several times a second with how it stands.
    gpus
        GPUs in the cluster; a network's task takes one where there is one.
    """

    def __init__(
        self,
        *,
        data: TrainingData,
        vault: Vault,
        executor: Executor,
        budget: Budget,
        candidates: Sequence[str],
        objective: str,
        seed: int,
        pretrained_uri: str,
        tracker: Tracker,
        check: Callable[[], None],
        report: Callable[[Snapshot], None],
    ) -> None:
        self.data = data
        self.vault = vault
        self.executor = executor
        self.budget = budget
        self.candidates = list(candidates)
        self.objective = objective
        self.seed = seed
        self.pretrained_uri = pretrained_uri
        self.tracker = tracker
        self.check = check
        self.report = report
        self.trials: list[Trial] = []
        self.running: dict[str, tuple[Task[TaskSummary], Trial]] = {}
        self.samples = len(data.part("train"))
        self.proposals = Proposals(seed, objective)
        self.device = "gpu" if executor.gpus >= 1 else "cpu"

    # -- trials and their records ----------------------------------------------------------------------------------------------

    def _new_trial(self, candidate: str, recipe: Recipe | None) -> Trial:
        number = len(self.trials)
        trial = Trial(f"t{number:03d}-{candidate.replace('_', '-')}", candidate, recipe, number)
        self.trials.append(trial)
        self._remember()
        return trial

    def _remember(self) -> None:
        """Write down which trials there are, so that a rerun has the same ones."""
        content = [
            {
                "id": t.id,
                "candidate": t.candidate,
                "recipe": asdict(t.recipe) if t.recipe else None,
                "number": t.number,
                "state": t.state,
                "message": t.message,
                "run_id": t.run_id,
                "seconds": t.seconds,
                "summaries": [asdict(s) for s in t.summaries],
            }
            for t in self.trials
        ]
        self.vault.save(PLAN, json.dumps(content).encode())

    def _recall(self) -> None:
        stored = self.vault.load(PLAN)
        for entry in json.loads(stored) if stored else []:
            trial = Trial(
                entry["id"],
                entry["candidate"],
                Recipe(**entry["recipe"]) if entry["recipe"] else None,
                entry["number"],
                summaries=[TaskSummary(**s) for s in entry["summaries"]],
                seconds=entry["seconds"],
                state=entry["state"],
                message=entry["message"],
                run_id=entry["run_id"],
            )
            trial.rung = len(trial.summaries) - 1
            self.trials.append(trial)
            if trial.summaries:
                self._tell(trial)

    def _tell(self, trial: Trial) -> None:
        value = trial.value(self.objective)
        if trial.recipe is not None and value is not None:
            self.proposals.tell(trial.recipe, value)

    def records(self) -> list[TrialRecord]:
        """Give all trials, best first; those without a result last."""
        sign = 1.0 if self.objective == "log_loss" else -1.0

        def order(trial: Trial) -> tuple[bool, float]:
            value = trial.value(self.objective)
            return (value is None, sign * value if value is not None else 0.0)

        return [self.record(trial) for trial in sorted(self.trials, key=order)]

    def record(self, trial: Trial) -> TrialRecord:
        """Give a trial as it goes into the package."""
        scores = trial.summaries[-1].scores if trial.summaries else {}
        count = len(self.data.part("validation"))
        state = trial.state
        if state == "running" and trial.id not in self.running and trial.summaries:
            state = "pruned" if trial.recipe is not None and trial.rung < LAST_RUNG else "finished"
        parameters = dict(trial.summaries[-1].parameters) if trial.summaries else (asdict(trial.recipe) if trial.recipe else {})
        return TrialRecord(
            id=trial.id,
            candidate=trial.candidate,
            parameters=parameters,
            state=state,
            metrics=[MetricValue(name, value, split="validation", sample_count=count) for name, value in scores.items()],
            objective=trial.value(self.objective),
            duration=trial.seconds,
            run_id=trial.run_id,
            message=trial.message,
        )

    # -- the loop --------------------------------------------------------------------------------------------------------------

    def run(self) -> SearchResult:
        """Search until the time is up or nothing is left to try.

        Raises
        ------
        Internal
            NO_CANDIDATE: not even the baseline could be fitted.
        """
        self._recall()
        known = {trial.candidate for trial in self.trials}
        for name in self.candidates:
            if name in BASELINES and name not in known:
                self._new_trial(name, None)
        slots = max(1, int(self.executor.cpus))
        while True:
            self.check()
            self.budget.keep()
            while len(self.running) < slots and (task := self._next()) is not None:
                self._start(*task)
            if not self.running:
                break
            done, _ = self.executor.wait([task for task, _ in self.running.values()], timeout=0.5)
            for task in done:
                self._finish(task)
            self.report(self._snapshot())
            if self.budget.left_for_search <= 0 and self._answered():
                # Tasks stop by themselves at the deadline; one that hangs is not waited for.
                done, _ = self.executor.wait([task for task, _ in self.running.values()], timeout=4.0, count=len(self.running))
                for task in done:
                    self._finish(task)
                self._abandon()
                break
        self.budget.keep(force=True)
        return self._result()

    def _answered(self) -> bool:
        return any(trial.summaries for trial in self.trials)

    def _abandon(self) -> None:
        for task, trial in self.running.values():
            task.cancel()
            trial.state, trial.message = "stopped", "the time was up"
        self.running.clear()
        self._remember()

    def _start(self, trial: Trial, rung: int, recipe: Recipe | None) -> None:
        trial.rung, trial.recipe, trial.state = rung, recipe, "running"
        self._remember()
        task = TrialTask(trial.id, trial.candidate, rung, recipe, self.seed, self.budget.search_end, self.vault, self.pretrained_uri)
        gpus = 1.0 if recipe is not None and self.device == "gpu" else 0.0
        handle = self.executor.submit(run_trial, task, cpus=1.0, gpus=gpus)
        self.running[trial.id] = (handle, trial)

    def _finish(self, task: Task[TaskSummary]) -> None:
        key = next(key for key, (known, _) in self.running.items() if known is task)
        _, trial = self.running.pop(key)
        try:
            summary = task.result()
        except OteoError as error:
            trial.state, trial.message = "failed", error.message
        except Exception as error:
            LOG.exception("trial %s failed", trial.id)
            trial.state, trial.message = "failed", f"{type(error).__name__}: {error}"
        else:
            trial.summaries.append(summary)
            trial.seconds += summary.seconds
            trial.message = summary.message
            last = trial.recipe is None or trial.rung >= LAST_RUNG
            trial.state = "stopped" if summary.stopped else "finished" if last else "running"
            self._tell(trial)
        fitted = self._fitted(trial)
        trial.run_id = self.tracker.trial(self.record(trial), fitted.curve if fitted else []) or trial.run_id
        self._remember()

    def _next(self) -> tuple[Trial, int, Recipe | None] | None:
        """Give the task that promises most now; None where nothing is worth beginning."""
        for trial in self.trials:
            if trial.id in self.running or trial.state == "failed":
                continue
            if trial.recipe is None and not trial.summaries:
                return trial, 0, None
            # A rung that an earlier attempt had begun and not ended.
            if trial.recipe is not None and trial.state == "running" and trial.rung > len(trial.summaries) - 1:
                return trial, trial.rung, trial.recipe
        if self.budget.left_for_search < SHORTEST_NETWORK:
            return None
        tried = {trial.candidate for trial in self.trials}
        for name in self.candidates:
            if name in PORTFOLIO and name not in tried:
                return self._begin(name, self._fit_epochs(self._recipe(name), 0, None))
        promoted = self._promotion()
        if promoted is not None:
            return promoted
        return self._proposal()

    def _begin(self, name: str, recipe: Recipe | None) -> tuple[Trial, int, Recipe] | None:
        return None if recipe is None else (self._new_trial(name, recipe), 0, recipe)

    def _recipe(self, name: str) -> Recipe:
        return Recipe(
            network=name,
            epochs=planned_epochs(self.samples, 0),
            learning_rate=PORTFOLIO[name].learning_rate,
            batch=32 if self.samples >= 64 else 16,
            seed=self.seed,
        )

    def _epoch_seconds(self, name: str) -> float | None:
        """Give the measured time of an epoch of this network, or an estimate from another one's."""
        measured: dict[str, float] = {}
        for trial in self.trials:
            if trial.recipe is not None and trial.summaries:
                epochs = max(1, int(trial.summaries[-1].parameters.get("epochs_done", 1)))
                measured[trial.candidate] = trial.seconds / epochs
        if name in measured:
            return measured[name]
        ratios = [seconds / PORTFOLIO[other].cost for other, seconds in measured.items() if other in PORTFOLIO]
        return float(np.mean(ratios)) * PORTFOLIO[name].cost if ratios else None

    def _fit_epochs(self, recipe: Recipe, rung: int, trial: Trial | None) -> Recipe | None:
        """Shorten a rung to the time that is left, so that its learning rate falls to nothing; None where too little is left."""
        epochs = planned_epochs(self.samples, rung)
        seconds = self._epoch_seconds(recipe.network)
        if seconds is not None:
            epochs = min(epochs, int(self.budget.left_for_search * 0.85 / max(seconds, 1e-6)))
        return replace(recipe, epochs=epochs) if epochs >= 3 else None

    def _promotion(self) -> tuple[Trial, int, Recipe] | None:
        for rung in range(LAST_RUNG - 1, -1, -1):
            peers = [t for t in self.trials if t.recipe is not None and len(t.summaries) > rung and t.state != "failed"]
            values = {t.id: t.summaries[rung].scores.get(self.objective, t.summaries[rung].scores["log_loss"]) for t in peers}
            ranked = sorted(peers, key=lambda t: values[t.id], reverse=self.objective != "log_loss")
            for trial in ranked[: max(1, len(ranked) // 2)]:
                if (
                    len(trial.summaries) == rung + 1
                    and trial.id not in self.running
                    and trial.state == "running"
                    and trial.recipe is not None
                ):
                    recipe = self._fit_epochs(trial.recipe, rung + 1, trial)
                    # Less than the rung before would only undo it.
                    if recipe is not None and recipe.epochs >= planned_epochs(self.samples, rung) // 2:
                        return trial, rung + 1, recipe
        return None

    def _proposal(self) -> tuple[Trial, int, Recipe] | None:
        leaders = [t for t in self.trials if t.recipe is not None and t.summaries and t.state != "failed"]
        if not leaders:
            return None
        leaders.sort(key=lambda t: t.value(self.objective) or 0.0, reverse=self.objective != "log_loss")
        networks = list(dict.fromkeys(t.candidate for t in leaders))[:2]
        recipe = self.proposals.ask([self._recipe(name) for name in networks])
        shortened = self._fit_epochs(recipe, 0, None)
        if shortened is None or shortened.epochs < planned_epochs(self.samples, 0) // 2:
            return None
        return self._begin(recipe.network, shortened)

    def _snapshot(self) -> Snapshot:
        records = self.records()
        best = records[0] if records and records[0].objective is not None else None
        running = [trial for _, trial in self.running.values()]
        stage = (
            "training " + ", ".join(f"{t.candidate} (rung {t.rung + 1})" if t.recipe else t.candidate for t in running)
            if running
            else "searching"
        )
        return Snapshot(best, sum(1 for t in self.trials if t.id not in self.running), len(running), stage, self.budget.elapsed)

    # -- the end ---------------------------------------------------------------------------------------------------------------

    def _fitted(self, trial: Trial) -> Fitted | None:
        if not trial.summaries:
            return None
        stored = self.vault.load(f"trials/{trial.id}/rung{trial.summaries[-1].rung}.pt")
        return Fitted.from_bytes(stored) if stored else None

    def _candidate(self, trial: Trial, fitted: Fitted) -> FittedCandidate:
        return FittedCandidate(
            trial=trial.id,
            name=trial.candidate,
            module=unpack_module(fitted.module),
            input_policy=self.data.policy,
            parameters=fitted.parameters,
            initial_weights=fitted.initial_weights,
            logits=fitted.logits,
            labels=self.data.labels[fitted.places],
            samples=[self.data.samples[int(place)] for place in fitted.places],
            groups=[self.data.groups[int(place)] for place in fitted.places],
            calibrated_on=fitted.calibrated_on,
            curve=fitted.curve,
            duration=trial.seconds,
        )

    def _result(self) -> SearchResult:
        ranked: list[tuple[Trial, Fitted]] = []
        by_id = {trial.id: trial for trial in self.trials}
        for record in self.records():
            trial = by_id[record.id]
            if trial.summaries and (fitted := self._fitted(trial)) is not None:
                ranked.append((trial, fitted))
        if not ranked:
            reasons = "; ".join(f"{t.candidate}: {t.message}" for t in self.trials if t.message)
            raise Internal(
                f"no candidate could be fitted: {reasons or 'the time was up before the baseline had ended'}", reason="NO_CANDIDATE"
            )
        winner = self._candidate(*ranked[0])
        runner_up = next((self._candidate(t, f) for t, f in ranked[1:] if t.candidate != winner.name), None)
        baseline = next((self._candidate(t, f) for t, f in ranked if t.candidate == "classical"), None)
        vote = self._vote(ranked)
        if vote is not None:
            runner_up, winner = winner, vote
        curves = {trial.id: fitted.curve for trial, fitted in ranked if fitted.curve}
        return SearchResult(
            winner=winner,
            runner_up=runner_up,
            baseline=baseline,
            trials=self.records(),
            curves=curves,
            objective=self.objective,
            fingerprint=self.data.fingerprint(),
            plan=self._words(),
            device=self.device,
            elapsed=self.budget.elapsed,
        )

    def _vote(self, ranked: list[tuple[Trial, Fitted]]) -> FittedCandidate | None:
        """Give the vote of the best two or three of different kinds, where it is clearly better than the best alone on the validation part."""
        began = time.perf_counter()
        kinds: dict[str, tuple[Trial, Fitted]] = {}
        for trial, fitted in ranked:
            kinds.setdefault(trial.candidate, (trial, fitted))
        places = self.data.part("validation")
        if len(places) < 20 or len(kinds) < 2:
            return None
        labels = self.data.labels[places]
        answers = []
        for trial, fitted in list(kinds.values())[:3]:
            where = {int(place): index for index, place in enumerate(fitted.places)}
            if not all(int(place) in where for place in places):
                continue
            own = fitted.logits[[where[int(place)] for place in places]]
            answers.append((trial, fitted, softmax(own, (t := fit_temperature(own, labels).temperature)), t))
        best = score(np.log(np.clip(answers[0][2], 1e-6, 1)).astype(np.float32), labels) if answers else {}
        chosen, logits = None, None
        for count in range(2, len(answers) + 1):
            mean = np.mean([answer[2] for answer in answers[:count]], axis=0)
            candidate = np.log(np.clip(mean, 1e-6, 1.0)).astype(np.float32)
            scores = score(candidate, labels)
            clear = 0.97 if self.objective == "log_loss" else 1.005
            if better(self.objective, scores[self.objective], best[self.objective] * clear):
                chosen, logits, best = answers[:count], candidate, scores
        if chosen is None or logits is None:
            return None
        names = "+".join(trial.candidate for trial, _, _, _ in chosen)
        trial = self._new_trial(f"vote:{names}", None)
        trial.state = "finished"
        parameters = {"members": [t.id for t, _, _, _ in chosen], "temperatures": [temperature for _, _, _, temperature in chosen]}
        trial.seconds = time.perf_counter() - began
        trial.summaries.append(TaskSummary(trial.id, 0, best, trial.seconds, False, "", parameters))
        trial.run_id = self.tracker.trial(self.record(trial), [])
        return FittedCandidate(
            trial=trial.id,
            name=trial.candidate,
            module=ImageVote(
                [unpack_module(fitted.module) for _, fitted, _, _ in chosen], [temperature for *_, temperature in chosen]
            ).eval(),
            input_policy=self.data.policy,
            parameters=parameters,
            initial_weights=", ".join(dict.fromkeys(fitted.initial_weights for _, fitted, _, _ in chosen)),
            logits=logits,
            labels=labels,
            samples=[self.data.samples[int(place)] for place in places],
            groups=[self.data.groups[int(place)] for place in places],
            curve=max((fitted.curve for _, fitted, _, _ in chosen), key=len),
            duration=sum(t.seconds for t, _, _, _ in chosen),
        )

    def _words(self) -> str:
        networks = [name for name in self.candidates if name in PORTFOLIO]
        scratch = (
            "from pretrained weights where there are any" if self.pretrained_uri else "from scratch (no pretrained weights were given)"
        )
        return (
            f"The cheap baselines first ({', '.join(n for n in self.candidates if n in BASELINES)}), then {', '.join(networks) or 'no networks'} {scratch} under successive "
            f"halving, then a search around the leaders, until {self.budget.total - self.budget.reserve:.0f} of {self.budget.total:.0f} s; "
            f"the rest is for calibration, export, the check on Triton and the report."
        )


def curve_of(records: Sequence[dict[str, Any]]) -> list[EpochRecord]:
    """Read epochs that were written as JSON."""
    return [EpochRecord(**record) for record in records]
