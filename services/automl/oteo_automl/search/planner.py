"""The plan: what will be tried, how large, how long, and when it will be done; in words and numbers, from what was measured."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from oteo_automl.candidates.training import LEAST_STEPS, STATISTICS_IMAGES
from oteo_automl.search.budget import Budget
from oteo_automl.search.probe import Probe
from oteo_automl.search.result import Plan, PlannedCandidate
from oteo_automl.search.schedule import folded_epochs, plan_rungs
from oteo_automl.search.work import Entry, Work
from oteo_core.jobs.executor import Executor

_LEAST_EPOCHS = 3
_LAST_RUNG = 12.0
"""Seconds left for a search below which a training has no rungs."""
_LEAST_MARGIN = 3.0
_FINISHING = 12.0
"""Seconds for thresholds, export, the check on Triton and the report on two cores, where there are few images: measured 5 to 9 s, and Triton's start."""
_LEARNING, _JUDGING = 3.0, 1.3
"""Times that learning from an image takes longer than answering for it; and a training than its steps."""
_JUDGED_OFTEN = 6
"""Times that held-out images are answered for, for judging and for thresholds."""


@dataclass(slots=True)
class Speeds:
    """Seconds of an epoch of every network: trained, measured by a probe, or guessed from those by relative cost.

    Parameters
    ----------
    work
        What can be tried.
    probes
        What was measured, by `Entry.model`; grows.
    trained
        Mean seconds of the epochs that were trained, by `Entry.model`; grows.
    slots
        Networks that are trained side by side.
    """

    work: Work[Any]
    probes: Mapping[str, Probe]
    trained: dict[str, float]
    slots: int = 1

    @property
    def waves(self) -> int:
        """Trainings one after the other that a network's other folds take."""
        return math.ceil(len(self.work.other_folds) / max(1, self.slots))

    def epoch(self, entry: Entry) -> float:
        """Give the seconds of an epoch."""
        if entry.model in self.trained:
            return self.trained[entry.model]
        if entry.model in self.probes:
            return self.probes[entry.model].epoch_seconds(self.work.train_count)
        return self.work.cost(entry) * self._factor()

    def step(self, entry: Entry) -> float:
        """Give the seconds of a step; 0 where it was not measured."""
        return self.probes[entry.model].step_seconds if entry.model in self.probes else 0.0

    def measured(self, entry: Entry) -> bool:
        """Say whether it was measured, not guessed."""
        return entry.model in self.trained or entry.model in self.probes

    def _factor(self) -> float:
        """How much slower this machine is than the guess says, by what was measured."""
        ratios = []
        for one in self.work.entries:
            if not one.cheap and self.measured(one):
                ratios.append(self.epoch(one) / max(1e-9, self.work.cost(one)))
        return sum(ratios) / len(ratios) if ratios else 1.0


def network_slots(work: Work[Any], executor: Executor) -> int:
    """Say how many networks are trained side by side."""
    return max(1, int(executor.gpus / work.gpu_share)) if work.gpu_share > 0 else max(1, int(executor.cpus))


def least_training(probe: Probe, train_count: int, held_out: int) -> float:
    """Give the seconds of the least training that is worth publishing, `LEAST_STEPS` and a judgement, by what was measured of a network."""
    forward = probe.step_seconds / max(1, probe.batch) / _LEARNING
    return _LEAST_MARGIN + _JUDGING * LEAST_STEPS * probe.step_seconds + forward * (min(STATISTICS_IMAGES, train_count) + held_out)


def least_finishing(probe: Probe, held_out: int, test: int, slowness: float) -> float:
    """Give the seconds that follow a search of one network at the least, by what was measured of it.

    Parameters
    ----------
    probe
        Of the network.
    held_out, test
        Images that thresholds are found on, and that the model is judged on.
    slowness
        How many times slower than usual the machine is.
    """
    forward = probe.step_seconds / max(1, probe.batch) / _LEARNING
    return _FINISHING * slowness + forward * (_JUDGED_OFTEN * held_out + 2 * test)


def make_plan(
    work: Work[Any],
    speeds: Speeds,
    reasons: Mapping[str, str],
    budget: Budget,
    *,
    fingerprint: Mapping[str, Any],
    device: str,
    folds: int,
    input_size: int,
    steps: dict[str, float],
    notes: Sequence[str] = (),
    messages: Mapping[str, str] | None = None,
) -> Plan:
    """Say what a search means to do.

    Parameters
    ----------
    work, speeds, budget
        What can be tried, how quick it is, and the time.
    reasons
        Why each candidate is in or out, by name; those that `work` has no entry for are out.
    fingerprint, device, folds
        See `Plan`.
    input_size
        Longer side of the inputs, pixels.
    steps
        Measured seconds of what was done before.
    notes
        Sentences for the summary: what was left out, what is wrong with the data.
    messages
        What could not be measured, by `Entry.model`.
    """
    plan = Plan("", [], dict(fingerprint), device, max(1, folds), steps, list(notes))
    if folds == 0:
        plan.notes.append("There are too few images to hold any out: figures of the search are of the training images themselves.")
    names = {one.name for one in work.entries}
    for name, reason in reasons.items():
        chosen = name in names
        plan.candidates.append(PlannedCandidate(name, input_size=input_size, reason=reason if chosen else f"left out: {reason}"))
    refresh(plan, work, speeds, budget, messages or {})
    return plan


def refresh(plan: Plan, work: Work[Any], speeds: Speeds, budget: Budget, messages: Mapping[str, str]) -> None:
    """Put in the plan what has been measured since."""
    entries = {one.name: one for one in work.entries}
    for line in plan.candidates:
        entry = entries.get(line.name)
        if entry is None or entry.cheap:
            continue
        recipe = work.recipe(entry)
        probe = speeds.probes.get(entry.model)
        line.batch_size = min(recipe.batch, probe.batch) if probe else recipe.batch
        line.step_seconds = speeds.step(entry)
        line.peak_memory = probe.peak_bytes if probe else 0
        line.epoch_seconds = speeds.epoch(entry)
        line.epochs = rungs_of(speeds, entry, budget)[-1]
        line.measured = speeds.measured(entry)
        line.initial_weights = "pretrained" if work.pretrained(entry) and line.initial_weights == "scratch" else line.initial_weights
        said = [line.reason.split(" | ")[0]]
        if not line.measured:
            said.append(messages.get(entry.model, "not measured yet: its times are guessed from the others'"))
        elif probe and probe.message:
            said.append(f"the batch is {probe.batch}: {probe.message}")
        if line.epoch_seconds * _LEAST_EPOCHS > budget.total - budget.reserve:
            said.append(f"an epoch takes {_seconds(line.epoch_seconds)}, too long for this budget")
        line.reason = " | ".join(said)
    plan.summary = _words(work, speeds, budget, plan)


def rungs_of(speeds: Speeds, entry: Entry, budget: Budget) -> list[int]:
    """Give the epochs at which a network is compared with others; the last is its whole plan."""
    work = speeds.work
    rungs = plan_rungs(
        work.train_count,
        budget=budget.total - budget.reserve,
        pretrained=work.pretrained(entry),
        epoch_seconds=speeds.epoch(entry),
        images=work.images_wanted,
        most=work.most_epochs,
        share=work.whole_share,
        waves=speeds.waves,
    )
    # Late in a search nothing is begun after a rung: what stops there would never go on.
    return rungs[-1:] if budget.left < _LAST_RUNG else rungs


def has_folds(speeds: Speeds, entry: Entry, budget: Budget) -> bool:
    """Say whether the plan of a network leaves time for its other folds."""
    work, seconds = speeds.work, speeds.epoch(entry)
    search = budget.total - budget.reserve
    return folded_epochs(work.train_count, budget=search, pretrained=work.pretrained(entry), epoch_seconds=seconds, waves=speeds.waves) > 0


def _words(work: Work[Any], speeds: Speeds, budget: Budget, plan: Plan) -> str:
    search_seconds = budget.total - budget.reserve
    cheap = [one.name for one in work.entries if one.cheap]
    networks = [one for one in work.entries if not one.cheap]
    sentences = []
    if cheap:
        sentences.append(f"Cheap classifiers come first ({', '.join(cheap)}), so that there is an answer early.")
    if networks:
        listed = []
        for one in networks:
            epoch = speeds.epoch(one)
            epochs = rungs_of(speeds, one, budget)[-1]
            how = "" if speeds.measured(one) else " by a guess"
            listed.append(f"{one.name} ({epochs} epochs of {_seconds(epoch)}{how})")
        sentences.append(
            f"{'Beside them' if cheap else 'First'} these networks under successive halving: {', '.join(listed)}; "
            "those whose learning curve cannot win are stopped, and new settings are tried around the leaders."
        )
        if work.partners:
            sentences.append("Where the time allows, a second network is trained to its end, because the two may answer together.")
        if work.other_folds:
            sentences.append(
                f"Where time is left for it, the best network is trained with each of the other {len(work.other_folds)} folds held out as well, "
                "and its networks answer together."
            )
    else:
        sentences.append("No networks are trained.")
    sentences.append(
        f"The search ends after {search_seconds:.0f} of {budget.total:.0f} s at the latest. "
        "The rest is for calibration, export, the check on Triton and the report."
    )
    if plan.folds > 1 and cheap:
        sentences.append(f"Cheap classifiers are cross-validated ({plan.folds} folds by group, the validation part one of them).")
    return " ".join([*sentences, *plan.notes])


def _seconds(value: float) -> str:
    return f"{value:.0f} s" if value >= 10 else f"{value:.1f} s" if value >= 0.1 else f"{1000 * value:.0f} ms"


def predict_end(budget: Budget, now: float, remaining: float | None) -> float:
    """Say when all will be done, seconds since 1970, never after the budget's end.

    Parameters
    ----------
    budget
        The time.
    now
        Seconds since 1970.
    remaining
        Seconds of work that the search has left; None: it will use all its time, because there are always new settings to try.
    """
    if remaining is None:
        return max(budget.end, now)
    return max(now, min(budget.end, now + remaining + budget.reserve))
