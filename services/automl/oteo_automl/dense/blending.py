"""A dense search's mixture: the best trials' networks are loaded, mixed where that is worth its time, and made a trial of their own."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from oteo_automl.candidates.registry import BLEND
from oteo_automl.dense.base import DenseTask
from oteo_automl.dense.mixing import Contender, Mixture, find_mixture
from oteo_automl.dense.pieces import DenseProblem, StoredNetwork, make_lesson
from oteo_automl.dense.result import FittedNetwork
from oteo_automl.search.ensemble import measure_latency
from oteo_automl.search.pieces import PieceResult, model_name
from oteo_automl.search.trial import FINISHED, Trial

_MOST = 4
"""Networks that mixtures are made of."""

_SAME = 2
"""Of those, trials of one candidate."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked of a mixture.

    Parameters
    ----------
    objective
        What trials are compared by.
    groups
        Of all samples; empty: every image alone.
    max_latency
        Seconds for one image.
    seconds
        That looking for one may take.
    """

    objective: str
    groups: Sequence[str]
    max_latency: float
    seconds: float


def blend_trials(
    task: DenseTask, problem: DenseProblem, ranked: Sequence[Trial], trials: list[Trial], asked: Asked
) -> FittedNetwork | None:
    """Give a mixture of several trials' networks where one is worth its time, and add its trial to `trials`.

    Parameters
    ----------
    task, problem
        The search's.
    ranked
        Trials with results, the one that would be chosen alone first.
    trials
        All of them.
    asked
        See `Asked`.

    Returns
    -------
    FittedNetwork or None
        None too where nothing was held out: then nothing tells a mixture from luck.
    """
    began = time.time()
    contenders = _contenders(task, problem, ranked) if problem.held_out is not problem.train else []
    if len(contenders) < 2:
        return None
    images, targets = problem.cache.open()
    found = find_mixture(
        task,
        contenders,
        images,
        targets,
        problem.held_out,
        asked.groups or [str(row) for row in range(len(images))],
        objective=asked.objective,
        classes=problem.classes,
        facts=problem.facts,
        seed=problem.seed,
        limit=asked.max_latency,
        seconds=asked.seconds,
    )
    return None if found is None else _fitted(problem, found, trials, asked.objective, began)


def _fitted(problem: DenseProblem, found: Mixture, trials: list[Trial], objective: str, began: float) -> FittedNetwork:
    images, targets = problem.cache.open()
    candidate = replace(found.contenders[0].candidate, name=BLEND)
    # On the same images and by the same figures as its parts, so that the list of trials compares like with like.
    lesson = make_lesson(problem, candidate, images, targets)
    lesson.place(torch.device("cpu"))
    judgement = lesson.judge(found.module)
    parts = [one.trial for one in found.contenders]
    message = (
        f"better than the best of its models by {found.gain:.3f} of {objective.replace('_', ' ')} on held-out images that its weights were "
        "not found on"
    )
    result = PieceResult(
        {**judgement.scores, "loss": judgement.loss},
        time.time() - began,
        parameters={
            "parts": [one.id for one in parts],
            "candidates": [one.candidate for one in parts],
            "weights": list(found.weights),
        },
        initial_weights=", ".join(dict.fromkeys(one.results[-1].initial_weights for one in parts)),
        latency=measure_latency(found.module, images[0]),
        message=message,
    )
    trial = Trial(f"t{len(trials):03d}-{BLEND}", BLEND, state=FINISHED, results=[result], seconds=result.seconds, message=message)
    trials.append(trial)
    return FittedNetwork(
        trial_id=trial.id,
        candidate=candidate,
        module=found.module,
        parameters=dict(result.parameters),
        initial_weights=result.initial_weights,
        curve=list(parts[0].curve),
        duration=sum(one.seconds for one in parts) + result.seconds,
        objective=judgement.scores.get(objective, float("nan")),
    )


def _contenders(task: DenseTask, problem: DenseProblem, ranked: Sequence[Trial]) -> list[Contender]:
    """Load the best trials that can be mixed with the first, few of each candidate."""
    found: list[Contender] = []
    seen: Counter[str] = Counter()
    kind = task.mixes(task.find(ranked[0].candidate)) if ranked else ""
    image = problem.cache.open()[0][0]
    for trial in ranked if kind else ():
        candidate = task.find(trial.candidate)
        if task.mixes(candidate) != kind or seen[trial.candidate] >= _SAME or len(found) >= _MOST:
            continue
        data = problem.checkpoints.load(model_name(trial.id))
        if data is None:
            continue
        module = StoredNetwork.from_bytes(data).module
        # The machine is idle now: the worker that trained it measured with others beside it.
        latency = measure_latency(module, image)
        trial.results[-1].latency = latency
        seen[trial.candidate] += 1
        found.append(Contender(trial, candidate, module, latency))
    return found
