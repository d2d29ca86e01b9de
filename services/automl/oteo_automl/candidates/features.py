"""Fitting classifiers on features that a fixed network gives: descriptors, or the trunk of a frozen network."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from oteo_automl.candidates.base import Fitted, pack_module, score
from oteo_automl.candidates.heads import to_module
from oteo_automl.candidates.kernel import KernelLogisticRegression
from oteo_automl.evaluation.calibration import fit_temperature, softmax
from oteo_automl.search.data import TrainingData

FOLDS = 5
MOST_FOR_FOLDS = 4000
Check = Callable[[], None]


def extract(extractor: nn.Module, data: TrainingData, places: NDArray[np.int64], check: Check, batch: int = 32) -> NDArray[np.float32]:
    """Give the features ``(N, F)`` of the images at these places; ``check`` is called for each batch and may raise."""
    parts = []
    with torch.inference_mode():
        for start in range(0, len(places), batch):
            check()
            images = np.ascontiguousarray(data.images[places[start : start + batch]])
            parts.append(extractor(torch.from_numpy(images)).float().numpy())
    return np.concatenate(parts)


class Vote(nn.Module):
    """The mean of several classifiers' probabilities, each at its own temperature, as logits."""

    temperatures: torch.Tensor

    def __init__(self, heads: list[nn.Module], temperatures: list[float]) -> None:
        super().__init__()
        self.heads = nn.ModuleList(heads)
        self.register_buffer("temperatures", torch.tensor(temperatures, dtype=torch.float32))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Give logits ``(N, K)`` of ``(N, F)``."""
        total = torch.softmax(self.heads[0](values) / self.temperatures[0], dim=1)
        for index in range(1, len(self.heads)):
            total = total + torch.softmax(self.heads[index](values) / self.temperatures[index], dim=1)
        return torch.log((total / len(self.heads)).clamp(min=1e-6))


def configurations(seed: int, samples: int) -> Iterator[tuple[str, dict[str, Any], Pipeline]]:
    """Give the classifiers to try, the most promising of each kind first: kind, settings, unfitted pipeline."""

    def logistic(penalty: float) -> tuple[str, dict[str, Any], Pipeline]:
        return (
            "logistic",
            {"C": penalty},
            make_pipeline(StandardScaler(), LogisticRegression(C=penalty, max_iter=400, class_weight="balanced")),
        )

    def kernel(penalty: float, width: float) -> tuple[str, dict[str, Any], Pipeline]:
        return (
            "kernel",
            {"C": penalty, "gamma_scale": width},
            make_pipeline(StandardScaler(), KernelLogisticRegression(C=penalty, gamma_scale=width, seed=seed)),
        )

    def trees(leaf: int, share: float | str) -> tuple[str, dict[str, Any], Pipeline]:
        forest = ExtraTreesClassifier(
            n_estimators=200 if samples < 2000 else 100,
            min_samples_leaf=leaf,
            max_features=share,
            max_depth=24,
            class_weight="balanced",
            random_state=seed,
            n_jobs=1,
        )
        return ("trees", {"min_samples_leaf": leaf, "max_features": share}, make_pipeline(forest))

    def perceptron(alpha: float) -> tuple[str, dict[str, Any], Pipeline]:
        network = MLPClassifier((64,), alpha=alpha, max_iter=150, early_stopping=True, random_state=seed)
        return ("perceptron", {"alpha": alpha}, make_pipeline(StandardScaler(), network))

    yield logistic(0.03)
    yield trees(2, "sqrt")
    yield kernel(3.0, 1.0)
    yield logistic(0.003)
    yield kernel(10.0, 0.3)
    yield trees(1, 0.2)
    yield logistic(0.3)
    yield kernel(1.0, 3.0)
    if samples >= 500:
        yield perceptron(1.0)


def _logits(model: Pipeline, values: NDArray[Any]) -> NDArray[np.float32]:
    return np.log(np.clip(model.predict_proba(values), 1e-4, 1.0)).astype(np.float32)


def fit_on_features(
    extractor: nn.Module, data: TrainingData, *, seed: int, stop_at: float, check: Check, initial_weights: str = "none"
) -> Fitted:
    """Fit several classifiers on fixed features and keep the best, or the vote of the best of each kind.

    Parameters
    ----------
    extractor
        From images ``(N, H, W, C)`` to features ``(N, F)``.
    data
        The images; the test part is not looked at.
    seed
        Seed of folds and forests.
    stop_at
        ``time.time()`` at which no further classifier is begun; one is fitted in any case.
    check
        Called often; raises where the work is to stop.

    Notes
    -----
    Up to 4000 images the classifiers are judged out of fold on training and validation parts together (grouped, stratified), and the one chosen is fitted on both; beyond,
    or where there are too few groups, they are fitted on the training part and judged on the validation part.
    """
    began = time.perf_counter()
    extractor = extractor.eval()
    places = data.part("train", "validation")
    values = extract(extractor, data, places, check)
    where = {int(place): index for index, place in enumerate(places)}
    folds = data.folds(places, FOLDS, seed) if len(places) <= MOST_FOR_FOLDS else []
    out_of_fold = bool(folds)
    if not folds:
        folds = [(data.part("train"), data.part("validation"))]
    held_out = np.concatenate([held for _, held in folds])
    labels = data.labels[held_out]
    on_validation = np.isin(held_out, data.part("validation"))
    best: dict[str, tuple[float, dict[str, Any], Pipeline, NDArray[np.float32], float]] = {}
    tried = 0
    for kind, settings, model in configurations(seed, len(places)):
        if tried and time.time() >= stop_at:
            break
        check()
        logits = []
        for fit, held in folds:
            index = [where[int(place)] for place in fit]
            model.fit(values[index], data.labels[fit])
            logits.append(_logits(model, values[[where[int(place)] for place in held]]))
            check()
        answer = np.concatenate(logits)
        temperature = fit_temperature(answer, labels).temperature
        probabilities = softmax(answer, temperature)
        loss = float(-np.log(np.clip(probabilities[np.arange(len(labels)), labels], 1e-7, 1)).mean())
        tried += 1
        if kind not in best or loss < best[kind][0]:
            best[kind] = (loss, settings, model, answer, temperature)
    ranked = sorted(best.items(), key=lambda item: item[1][0])
    fit_places = places if out_of_fold else data.part("train")
    chosen = [ranked[0]]
    logits_held = ranked[0][1][3]
    # The vote of the best of each kind costs nothing more; it is kept where it is better out of fold.
    voters = [item for item in ranked if item[1][0] < ranked[0][1][0] * 1.35][:3]
    if len(voters) > 1:
        mean = np.mean([softmax(item[1][3], item[1][4]) for item in voters], axis=0)
        vote = np.log(np.clip(mean, 1e-6, 1.0)).astype(np.float32)
        loss = -np.log(np.clip(softmax(vote, fit_temperature(vote, labels).temperature)[np.arange(len(labels)), labels], 1e-7, 1)).mean()
        if loss < ranked[0][1][0]:
            chosen, logits_held = voters, vote
    heads: list[nn.Module] = []
    index = [where[int(place)] for place in fit_places]
    for _, (_, _, model, _, _) in chosen:
        check()
        model.fit(values[index], data.labels[fit_places])
        heads.append(to_module(model))
    head = heads[0] if len(heads) == 1 else Vote(heads, [item[1][4] for item in chosen])
    scored = on_validation if on_validation.any() else np.ones(len(held_out), bool)
    return Fitted(
        module=pack_module(nn.Sequential(extractor, head)),
        places=held_out,
        logits=np.ascontiguousarray(logits_held, np.float32),
        scores=score(logits_held[scored], labels[scored]),
        parameters={"classifier": "+".join(kind for kind, _ in chosen), **{kind: item[1] for kind, item in chosen}, "tried": tried},
        seconds=time.perf_counter() - began,
        calibrated_on=f"training and validation parts, out of fold ({len(folds)} folds by group)" if out_of_fold else "the validation part",
        initial_weights=initial_weights,
    )
