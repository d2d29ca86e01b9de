"""Choosing the winner: the best trial, or a mixture of several, within the time at inference that was asked for."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from oteo_automl.candidates.modules import Blend
from oteo_automl.candidates.registry import BASELINE, BLEND, CANDIDATES
from oteo_automl.search.classification_pieces import Problem, StoredModel, measure_growth
from oteo_automl.search.ensemble import ENOUGH, Choice, Member, choose, halves, measure_latency, mix, select, toll
from oteo_automl.search.folded import gather_folds
from oteo_automl.search.front import mark_front, why_chosen
from oteo_automl.search.pieces import FOLDS_OF, PieceResult, model_name
from oteo_automl.search.result import FittedCandidate, Plan, Predictions, SearchResult
from oteo_automl.search.scoring import quick_loss, score
from oteo_automl.search.trial import FINISHED, Trial
from oteo_core.errors import Internal
from oteo_core.evaluation.data_curve import DataCurve
from oteo_core.evaluation.label_calibration import level

if TYPE_CHECKING:
    from oteo_automl.search.classification_work import Settings

_log = logging.getLogger(__name__)

_MOST = 9
"""Models that are loaded to choose from."""

_BEHIND = 0.25
"""Share of the best loss by which a model with answers on all folds may be worse on the first one and still be what is chosen from: so far a few dozen images
can be wrong."""

_SAME = 2
"""Of those, trials of one candidate."""

_GROWTH_SECONDS = 10.0
_SECONDS = 2.0
"""That finding a mixture may take, at most a fiftieth of the search."""


@dataclass(slots=True)
class _Contender:
    trial: Trial
    model: StoredModel
    answers: NDArray[np.float64]
    temperature: float
    latency: float


def choose_result(trials: list[Trial], problem: Problem, settings: Settings, plan: Plan, *, seconds: float) -> SearchResult:
    """Choose, and load what is handed over.

    A blend that wins is added to `trials`.

    Raises
    ------
    Internal
        ``NO_CANDIDATE``: no trial left a model.
    """
    superseded = _folded(trials, problem, settings) if settings.blend else set()
    ranked = sorted((trial for trial in trials if trial.results), key=lambda trial: trial.loss(settings.objective))
    contenders = _contenders([trial for trial in ranked if trial.id not in superseded], problem, settings)
    if not contenders:
        raise Internal("no trial left a model behind", reason="NO_CANDIDATE")
    chosen = _choice(contenders, problem, settings, seconds)
    single = contenders[chosen.parts[0]]
    if len(chosen.parts) > 1:
        single = min((contenders[part] for part in chosen.parts), key=lambda one: one.trial.loss(settings.objective))
        best = _blended(contenders, chosen, trials, problem, settings)
        runner_up: FittedCandidate | None = _fitted(single, problem, settings)
    else:
        best = _fitted(single, problem, settings)
        other = next((one for one in contenders if one.trial.candidate != single.trial.candidate), None)
        runner_up = None if other is None else _fitted(other, problem, settings)
    mark_front(trials, settings.objective)
    plan.notes.append(why_chosen(best.candidate, chosen.latency, settings.max_latency))
    for part in (contenders[place].trial for place in chosen.parts):
        if FOLDS_OF in part.results[-1].parameters:
            plan.notes[-1] += f" {part.candidate} is {part.message}."
    plan.summary = f"{plan.summary} {plan.notes[-1]}".strip()
    base = _baseline(best, ranked, problem, settings)
    return SearchResult(
        classes=settings.classes,
        objective=settings.objective,
        best=best,
        runner_up=runner_up,
        baseline=base,
        trials=[],
        curves={trial.id: trial.curve for trial in trials if trial.curve},
        plan=plan,
        seconds=seconds,
        fold_scores=_fold_scores(ranked),
        growth=_growth(ranked, problem, settings.groups, seconds),
    )


def _folded(trials: list[Trial], problem: Problem, settings: Settings) -> set[str]:
    """Add a trial for each network that was trained on several folds; give the ids of those that it stands for: with the first fold alone they are no choice beside it."""
    made = gather_folds(trials, problem)
    return {parent.id for parent, folded in made if folded.results[-1].latency <= settings.max_latency}


def _choice(contenders: Sequence[_Contender], problem: Problem, settings: Settings, seconds: float) -> Choice:
    """Choose between single models and mixtures; `Choice.parts` are places among the contenders."""
    chosen = _by_held_out(contenders, problem, settings, seconds)
    return _of_both_kinds(contenders, chosen, problem, settings, seconds) if settings.blend and problem.fold_count > 0 else chosen


def _of_both_kinds(contenders: Sequence[_Contender], chosen: Choice, problem: Problem, settings: Settings, seconds: float) -> Choice:
    """Give the plain mean of what was chosen and the best of the other kind, networks or classifiers on fixed features, where `halves` lets it; else what was chosen."""
    kinds = [[place for place in range(len(contenders)) if _is_network(contenders[place].trial) == kind] for kind in (True, False)]
    missing = [places for places in kinds if not set(places) & set(chosen.parts)]
    if len(missing) != 1 or not missing[0]:
        return chosen
    other, _ = _choice_among(contenders, missing[0], problem, settings, seconds)
    latency = chosen.latency + other.latency
    members, common = _members([contenders[place] for place in (*chosen.parts, *other.parts)])
    if latency > settings.max_latency or len(common) < ENOUGH:
        return chosen
    own, count = range(len(chosen.parts)), len(members)
    labels = problem.labels[common]
    answers = mix(members, own, chosen.weights), mix(members, range(len(own), count), other.weights)
    gain = halves(*answers, labels, _groups(settings, common), cost=toll(latency, chosen.latency))
    if gain is None:
        return chosen
    shares = tuple(0.5 * one for one in (*chosen.weights, *other.weights))
    loss = quick_loss(0.5 * (answers[0] + answers[1]), labels, settings.objective)
    return Choice((*chosen.parts, *other.parts), shares, loss, latency, gain, plain=True)


def _by_held_out(contenders: Sequence[_Contender], problem: Problem, settings: Settings, seconds: float) -> Choice:
    """Choose between single models and mixtures whose weights are found on held-out images."""
    everyone = list(range(len(contenders)))
    smallest = min(len(one.model.rows) for one in contenders)
    several = [place for place in everyone if len(contenders[place].model.rows) > 1.5 * smallest]
    first = contenders[0].trial.loss(settings.objective)
    near = any(contenders[place].trial.loss(settings.objective) <= first + _BEHIND * abs(first) for place in several)
    if near and 1 < len(several) < len(everyone) and any(_is_folded(contenders[place].trial) for place in several):
        # The leading network has answers on all rows, as the classifiers on features have: many samples tell more than the first fold.
        chosen, _ = _choice_among(contenders, several, problem, settings, seconds)
        if len(chosen.parts) > 1:
            return chosen
    chosen, count = _choice_among(contenders, everyone, problem, settings, seconds)
    # Cross-validated models have answers on many more samples than networks, which have held out the first fold alone: a mixture of those can be
    # told from luck where one with networks cannot.
    wide = [place for place in everyone if len(contenders[place].model.rows) > 1.5 * count]
    if len(chosen.parts) == 1 and chosen.parts[0] in wide and 1 < len(wide) < len(everyone):
        again, _ = _choice_among(contenders, wide, problem, settings, seconds)
        if len(again.parts) > 1:
            return again
    return chosen


def _choice_among(
    contenders: Sequence[_Contender], places: Sequence[int], problem: Problem, settings: Settings, seconds: float
) -> tuple[Choice, int]:
    """Choose among some of the contenders, by the samples that all of these have held out; also gives the number of those."""
    some = [contenders[place] for place in places]
    members, common = _members(some)
    losses = [one.trial.loss(settings.objective) for one in some]
    mixture = None
    if settings.blend and problem.fold_count > 0 and len(some) > 1:
        labels = problem.labels[common]
        mixture = select(
            members,
            lambda answers, rows: quick_loss(answers, labels[rows], settings.objective),
            _groups(settings, common),
            seed=problem.seed,
            limit=settings.max_latency,
            deadline=time.time() + min(_SECONDS, 0.02 * seconds),
        )
        if mixture is not None:
            # The same samples for the single models.
            losses = [quick_loss(member.answers, labels, settings.objective) for member in members]
    chosen = choose(members, mixture, losses, limit=settings.max_latency)
    return replace(chosen, parts=tuple(places[part] for part in chosen.parts)), len(common)


def _groups(settings: Settings, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number the groups of rows."""
    return np.unique([settings.groups[int(row)] for row in rows], return_inverse=True)[1].astype(np.int64)


def _fold_scores(ranked: Sequence[Trial]) -> dict[str, dict[int, float]]:
    """Give what is known by fold of the best trial of each candidate."""
    found: dict[str, dict[int, float]] = {}
    for trial in ranked:
        scores = trial.results[-1].fold_scores
        if len(scores) > 1 and trial.candidate not in found:
            found[trial.candidate] = {int(fold): value for fold, value in scores.items()}
    return found


def _growth(ranked: Sequence[Trial], problem: Problem, groups: Sequence[str], seconds: float) -> DataCurve | None:
    """Measure what more images would bring about, by the best classifier on features; a fiftieth of the time at most."""
    for trial in ranked:
        candidate = CANDIDATES.get(trial.candidate)
        if candidate is not None and candidate.family:
            parameters = trial.results[-1].parameters
            try:
                return measure_growth(problem, candidate, parameters, groups, seconds=min(_GROWTH_SECONDS, 0.02 * seconds))
            except Exception:  # noqa: BLE001 (whatever goes wrong here, a model was chosen)
                # The report lacks a curve then; the model is there all the same.
                _log.warning("what more images would bring about was not measured", exc_info=True)
                return None
    return None


def _baseline(best: FittedCandidate, ranked: Sequence[Trial], problem: Problem, settings: Settings) -> FittedCandidate:
    for trial in ranked:
        if trial.candidate == BASELINE and trial.id != best.trial_id and (found := _load(trial, problem)) is not None:
            return _fitted(found, problem, settings)
    return best


def _load(trial: Trial, problem: Problem) -> _Contender | None:
    data = problem.checkpoints.load(model_name(trial.id))
    if data is None:
        return None
    model = StoredModel.from_bytes(data)
    answers, temperature = level(model.logits, problem.labels[model.rows])
    # The machine is idle now: the worker that trained it measured with others beside it.
    image = problem.cache.open()[int(problem.rows[0])]
    latency = measure_latency(model.module, image)
    trial.results[-1].latency = latency
    return _Contender(trial, model, answers, temperature, latency)


def _contenders(ranked: Sequence[Trial], problem: Problem, settings: Settings) -> list[_Contender]:
    """Load the best trials, few of each candidate; those within the time that one image may take, or else the quickest."""
    quick = [trial for trial in ranked if trial.results[-1].latency <= 1.2 * settings.max_latency]
    # Networks of all folds first: they see other things than classifiers on features do, and may help these though they lag behind on the first fold.
    quick.sort(key=lambda trial: not _is_folded(trial))
    found: list[_Contender] = []
    seen: Counter[str] = Counter()
    for trial in quick or sorted(ranked, key=lambda trial: trial.results[-1].latency):
        if seen[trial.candidate] >= _SAME or len(found) >= _MOST:
            continue
        contender = _load(trial, problem)
        if contender is not None:
            seen[trial.candidate] += 1
            found.append(contender)
    found.sort(key=lambda one: ranked.index(one.trial))
    return found


def _is_network(trial: Trial) -> bool:
    candidate = CANDIDATES.get(trial.candidate)
    return candidate is None or not candidate.family


def _is_folded(trial: Trial) -> bool:
    return FOLDS_OF in trial.results[-1].parameters


def _members(contenders: Sequence[_Contender]) -> tuple[list[Member], NDArray[np.int64]]:
    """Give the contenders' answers on the samples that all of them have held out, and those rows."""
    common = contenders[0].model.rows
    for one in contenders[1:]:
        common = np.intersect1d(common, one.model.rows)
    return [Member(one.trial.id, one.answers[np.searchsorted(one.model.rows, common)], one.latency) for one in contenders], common


def _fitted(contender: _Contender, problem: Problem, settings: Settings) -> FittedCandidate:
    trial, model = contender.trial, contender.model
    last = trial.results[-1]
    return FittedCandidate(
        trial_id=trial.id,
        candidate=trial.candidate,
        module=model.module,
        input_policy=settings.policy,
        parameters=dict(last.parameters),
        initial_weights=last.initial_weights,
        validation=_predictions(model.rows, model.logits, model.source, problem, settings),
        curve=list(trial.curve),
        duration=trial.seconds,
        objective=last.scores.get(settings.objective, last.scores["log_loss"]),
    )


def _predictions(rows: NDArray[np.int64], logits: NDArray[np.float32], source: str, problem: Problem, settings: Settings) -> Predictions:
    return Predictions(
        sample_ids=tuple(settings.ids[int(row)] for row in rows),
        labels=problem.labels[rows],
        logits=np.ascontiguousarray(logits, dtype=np.float32),
        groups=tuple(settings.groups[int(row)] for row in rows),
        source=source,
    )


def _blended(
    contenders: Sequence[_Contender], choice: Choice, trials: list[Trial], problem: Problem, settings: Settings
) -> FittedCandidate:
    """Make a mixture: one module, its held-out answers, and a trial of its own."""
    began = time.time()
    chosen = [contenders[part] for part in choice.parts]
    shares = list(choice.weights)
    temperatures = [one.temperature for one in chosen]
    module = Blend([one.model.module for one in chosen], shares, temperatures, several=problem.labels.ndim == 2).eval()
    shared = chosen[0].model.rows
    for one in chosen[1:]:
        shared = np.intersect1d(shared, one.model.rows)
    logits = np.asarray(
        sum(w * one.answers[np.searchsorted(one.model.rows, shared)] for w, one in zip(shares, chosen, strict=True))
    ).astype(np.float32)
    held_out = np.isin(shared, problem.held_out)
    scores = score(logits[held_out], problem.labels[shared[held_out]]) if held_out.any() else score(logits, problem.labels[shared])
    sources = {one.model.source for one in chosen}
    source = sources.pop() if len(sources) == 1 else "the validation part"
    parameters = {"parts": [one.trial.id for one in chosen], "candidates": [one.trial.candidate for one in chosen], "weights": shares}
    initial = ", ".join(dict.fromkeys(one.trial.results[-1].initial_weights for one in chosen))
    latency = measure_latency(module, problem.cache.open()[int(problem.rows[0])])
    if choice.plain:
        message = (
            "a network and what looks at fixed features, half and half, because they err apart: log loss "
            f"{100 * abs(choice.gain):.1f} % {'lower' if choice.gain >= 0 else 'higher, which may be chance,'} on {len(shared)} held-out images "
            "than of what would have been chosen of one kind"
        )
    else:
        message = f"better than the best of its models by {100 * choice.gain:.1f} % on held-out samples that its weights were not found on"
    result = PieceResult(scores, time.time() - began, parameters=parameters, initial_weights=initial, latency=latency, message=message)
    trial = Trial(f"t{len(trials):03d}-{BLEND}", BLEND, state=FINISHED, results=[result], seconds=result.seconds, message=message)
    trials.append(trial)
    curves = [one.trial.curve for one in chosen if one.trial.curve]
    return FittedCandidate(
        trial_id=trial.id,
        candidate=BLEND,
        module=module,
        input_policy=settings.policy,
        parameters=parameters,
        initial_weights=initial,
        validation=_predictions(shared, logits, source, problem, settings),
        curve=list(curves[0]) if curves else [],
        duration=sum(one.trial.seconds for one in chosen) + result.seconds,
        objective=scores.get(settings.objective, scores["log_loss"]),
    )
