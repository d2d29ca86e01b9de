"""A network that was trained on all folds: its networks averaged in one graph, its held-out answers those of the cross-validation.

Every row is answered by the network that has held it out, so the figures are of one network; what is served is the mean of all, which is seldom
worse (Breiman, "Bagging predictors", Machine Learning 1996). A fold that has failed, or lies far below its siblings, is left out of the mean and
of the figures, and the trial says so.
"""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from oteo_automl.candidates.modules import Blend
from oteo_automl.candidates.training import Recipe
from oteo_automl.search.classification_pieces import Problem, StoredModel, fold_scores, log_loss_of, train_network
from oteo_automl.search.ensemble import measure_latency
from oteo_automl.search.guards import check_folds
from oteo_automl.search.pieces import FOLDS_OF, PieceResult, fold_name, model_name, result_name
from oteo_automl.search.scoring import score
from oteo_automl.search.trial import FINISHED, Trial
from oteo_core.evaluation.label_calibration import level


def rotated(problem: Problem, fold: int) -> Problem:
    """Give the problem in which this fold is held out, and the first one learnt from."""
    folds = np.where(problem.folds == fold, 0, np.where(problem.folds == 0, fold, problem.folds))
    return replace(problem, folds=folds, seed=problem.seed + fold)


def train_fold(problem: Problem, trial: str, fold: int, architecture: str, recipe: Recipe, epochs: int, deadline: float) -> PieceResult:
    """Train a network from its beginning to its end with a fold held out; the piece of a fold.

    Raises
    ------
    oteo_automl.candidates.training.Diverged
        The loss is not finite.
    """
    return train_network(rotated(problem, fold), trial, 0, architecture, recipe, epochs, epochs, deadline, watched=False)


def gather_folds(trials: list[Trial], problem: Problem) -> list[tuple[Trial, Trial]]:
    """Make a trial of each network that was trained on several folds, from what lies among the checkpoints, and add it to `trials`.

    Returns
    -------
    list
        Of the trial that has held out the first fold, and the one that stands for all folds.
    """
    made = []
    for parent in [one for one in trials if one.recipe is not None and one.results]:
        found = _gathered(parent, problem, len(trials))
        if found is not None:
            trials.append(found)
            made.append((parent, found))
    return made


def _stored(parent: str, problem: Problem) -> dict[int, tuple[StoredModel, PieceResult]]:
    """Give what each fold has left, the first one's among them; nothing where no other fold has left anything."""
    names = {
        0: [parent],
        **{fold: [fold_name(parent, fold, again=again) for again in (True, False)] for fold in range(1, problem.fold_count)},
    }
    found: dict[int, tuple[StoredModel, PieceResult]] = {}
    for fold in sorted(names, reverse=True):
        if fold == 0 and not found:
            break
        for name in names[fold]:
            # A fold that is not done has a model, perhaps, and no result; the first has a result for each rung.
            result = problem.checkpoints.load(result_name(name, 0))
            model = problem.checkpoints.load(model_name(name)) if result is not None else None
            if result is not None and model is not None:
                found[fold] = StoredModel.from_bytes(model), PieceResult.from_json(result)
                break
    return dict(sorted(found.items()))


def _gathered(parent: Trial, problem: Problem, number: int) -> Trial | None:
    began = time.time()
    folds = _stored(parent.id, problem)
    if 0 not in folds or len(folds) < 2:
        return None
    logits = np.concatenate([model.logits for model, _ in folds.values()])
    rows = np.concatenate([model.rows for model, _ in folds.values()])
    finite = np.isfinite(logits).all(axis=1)
    temperature = level(logits[finite], problem.labels[rows[finite]])[1] if finite.any() else 1.0
    numbers = list(folds)
    losses = [log_loss_of(model.logits, problem.labels[model.rows], temperature) for model, _ in folds.values()]
    check = check_folds(losses, [result.collapsed for _, result in folds.values()], names=numbers)
    left_out = [fold for fold in (*check.broken, *check.outlying) if fold]
    kept = [folds[fold][0] for fold in numbers if fold not in left_out]
    if len(kept) < 2:
        return None
    rows = np.concatenate([model.rows for model in kept])
    order = np.argsort(rows, kind="stable")
    rows, logits = rows[order], np.concatenate([model.logits for model in kept])[order]
    module = Blend(
        [model.module for model in kept], [1.0 / len(kept)] * len(kept), [1.0] * len(kept), several=problem.labels.ndim == 2
    ).eval()
    place = np.searchsorted(problem.rows, rows)
    held_out = problem.folds[place] == 0
    said = f"the mean of {len(kept)} networks, each trained with another fold held out"
    if left_out:
        said += f"; {check.message}: not in the mean, and their images not in its figures"
    elif check.message:
        said += f"; {check.message}"
    trial = Trial(f"t{number:03d}-{parent.candidate}-folds".replace("_", "-"), parent.candidate, state=FINISHED, message=said)
    result = PieceResult(
        scores=score(logits[held_out], problem.labels[rows[held_out]]),
        seconds=time.time() - began + sum(result.seconds for fold, (_, result) in folds.items() if fold),
        parameters={**(parent.last.parameters if parent.last else {}), FOLDS_OF: parent.id, "folds": len(kept), "left_out_folds": left_out},
        initial_weights=parent.last.initial_weights if parent.last else "scratch",
        message=said,
        latency=measure_latency(module, problem.cache.open()[int(problem.rows[0])]),
        fold_scores=fold_scores(problem.folds[place], logits, problem.labels[rows]),
    )
    trial.results, trial.seconds = [result], result.seconds
    source = f"the training and validation parts, cross-validated ({len(kept)} folds by group)"
    problem.checkpoints.save(model_name(trial.id), StoredModel(module, rows, logits, source).to_bytes())
    problem.checkpoints.save(result_name(trial.id, 0), result.to_json())
    return trial
