"""Choosing the winner: the best trial, or a blend of the best of several kinds."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from oteo_automl.candidates.modules import Blend
from oteo_automl.candidates.registry import BASELINE, BLEND
from oteo_automl.evaluation.label_calibration import level
from oteo_automl.search.classification_pieces import Problem, StoredModel
from oteo_automl.search.pieces import PieceResult, model_name
from oteo_automl.search.result import FittedCandidate, Plan, Predictions, SearchResult
from oteo_automl.search.scoring import objective_loss, score
from oteo_automl.search.trial import FINISHED, Trial
from oteo_core.errors import Internal

if TYPE_CHECKING:
    from oteo_automl.search.classification_work import Settings

_ENOUGH = 16
"""Held-out samples below which weights cannot be told apart from luck."""

_MARGIN = 0.01
"""A blend costs the time of its parts: it must be better by at least this share."""

_KINDS = 3
_WEIGHTS = (0.25, 0.5, 0.75)


@dataclass(slots=True)
class _Contender:
    trial: Trial
    model: StoredModel
    log_probabilities: NDArray[np.float64]
    temperature: float


def choose_result(trials: list[Trial], problem: Problem, settings: Settings, plan: Plan, *, seconds: float) -> SearchResult:
    """Choose, and load what is handed over.

    A blend that wins is added to `trials`.

    Raises
    ------
    Internal
        ``NO_CANDIDATE``: no trial left a model.
    """
    ranked = sorted((trial for trial in trials if trial.results), key=lambda trial: trial.loss(settings.objective))
    contenders = _contenders(ranked, problem)
    if not contenders:
        raise Internal("no trial left a model behind", reason="NO_CANDIDATE")
    best = _fitted(contenders[0], problem, settings)
    blend = _blend(contenders, trials, problem, settings) if settings.blend and problem.fold_count > 0 else None
    baseline = next((one for one in contenders if one.trial.candidate == BASELINE), None)
    if baseline is None:
        model = next((_load(trial, problem) for trial in ranked if trial.candidate == BASELINE), None)
        base = best if model is None else _fitted(model, problem, settings)
    else:
        base = best if baseline is contenders[0] else _fitted(baseline, problem, settings)
    if blend is not None:
        runner_up: FittedCandidate | None = best
        best = blend
    else:
        runner_up = _fitted(contenders[1], problem, settings) if len(contenders) > 1 else None
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
    )


def _load(trial: Trial, problem: Problem) -> _Contender | None:
    data = problem.checkpoints.load(model_name(trial.id))
    if data is None:
        return None
    model = StoredModel.from_bytes(data)
    answers, temperature = level(model.logits, problem.labels[model.rows])
    return _Contender(trial, model, answers, temperature)


def _contenders(ranked: Sequence[Trial], problem: Problem) -> list[_Contender]:
    """Load the best trial of each candidate, at most one more than a blend has parts."""
    found: list[_Contender] = []
    seen: set[str] = set()
    for trial in ranked:
        if trial.candidate in seen or len(found) > _KINDS:
            continue
        contender = _load(trial, problem)
        if contender is not None:
            seen.add(trial.candidate)
            found.append(contender)
    return found


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


def _blend(contenders: Sequence[_Contender], trials: list[Trial], problem: Problem, settings: Settings) -> FittedCandidate | None:
    """Give the weighted mean of two or three where it is clearly better than the best alone, on samples that all of them have held out."""
    began = time.time()
    common = contenders[0].model.rows
    for one in contenders[1:_KINDS]:
        common = np.intersect1d(common, one.model.rows)
    if len(common) < _ENOUGH or len(contenders) < 2:
        return None
    labels = problem.labels[common]
    answers = [one.log_probabilities[np.searchsorted(one.model.rows, common)] for one in contenders[:_KINDS]]
    alone = min(_loss(answer, labels, settings.objective) for answer in answers)
    found: tuple[float, tuple[int, ...], tuple[float, ...]] | None = None
    for parts, weights in _mixtures(len(answers)):
        mixed = sum(weight * answers[part] for part, weight in zip(parts, weights, strict=True))
        loss = _loss(np.asarray(mixed), labels, settings.objective)
        if found is None or loss < found[0]:
            found = (loss, parts, weights)
    if found is None or not found[0] < alone - _MARGIN * abs(alone):
        return None
    chosen = [contenders[part] for part in found[1]]
    shares = [float(weight) for weight in found[2]]
    temperatures = [one.temperature for one in chosen]
    module = Blend([one.model.module for one in chosen], shares, temperatures, several=problem.labels.ndim == 2).eval()
    shared = chosen[0].model.rows
    for one in chosen[1:]:
        shared = np.intersect1d(shared, one.model.rows)
    logits = np.asarray(
        sum(w * one.log_probabilities[np.searchsorted(one.model.rows, shared)] for w, one in zip(shares, chosen, strict=True))
    ).astype(np.float32)
    held_out = np.isin(shared, problem.held_out)
    scores = score(logits[held_out], problem.labels[shared[held_out]]) if held_out.any() else score(logits, problem.labels[shared])
    sources = {one.model.source for one in chosen}
    source = sources.pop() if len(sources) == 1 else "the validation part"
    parameters = {"parts": [one.trial.id for one in chosen], "candidates": [one.trial.candidate for one in chosen], "weights": shares}
    initial = ", ".join(dict.fromkeys(one.trial.results[-1].initial_weights for one in chosen))
    result = PieceResult(scores, time.time() - began, parameters=parameters, initial_weights=initial)
    trial = Trial(f"t{len(trials):03d}-{BLEND}", BLEND, state=FINISHED, results=[result], seconds=result.seconds)
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


def _loss(log_probabilities: NDArray[np.float64], labels: NDArray[np.int64], objective: str) -> float:
    return objective_loss(score(log_probabilities.astype(np.float32), labels), objective)


def _mixtures(count: int) -> list[tuple[tuple[int, ...], tuple[float, ...]]]:
    """Give parts and weights to try: all pairs at three weights, and all three alike. Few, so that luck finds little."""
    found: list[tuple[tuple[int, ...], tuple[float, ...]]] = [
        (pair, (weight, 1.0 - weight)) for pair in itertools.combinations(range(count), 2) for weight in _WEIGHTS
    ]
    if count >= 3:
        found.append(((0, 1, 2), (1 / 3, 1 / 3, 1 / 3)))
    return found
