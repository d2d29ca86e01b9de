"""scikit-learn's classifiers on fixed features: a small random search, cross-validated by groups."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.ensemble import ExtraTreesClassifier, GradientBoostingClassifier, RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.svm import SVC

from oteo_automl.candidates.heads import (
    BoostedHead,
    ForestHead,
    KernelHead,
    LinearHead,
    NeighboursHead,
    OneAgainstRest,
    PerceptronHead,
    Standardise,
    dudani_weights,
)
from oteo_automl.candidates.modules import Chain, SavedModule
from oteo_core.evaluation.calibration import fit_temperature
from oteo_core.evaluation.label_calibration import fit_labels

Parameters = dict[str, Any]
_BOOSTED_SAMPLES = 6_000_000
"""Samples times classes times trees of gradient boosting: about half a minute of one processor."""

_LIMITS = {"svm": 6000, "neighbours": 6000}
"""Images beyond which a family is not tried: machines would take too long, and a graph that holds every training image would be too large."""


@dataclass(frozen=True, slots=True)
class Family:
    """A kind of classifier.

    Parameters
    ----------
    name
        As in the candidates' names.
    first
        Settings that are tried first: the usual ones.
    draw
        Draws others.
    fit
        From standardised features, labels, settings, number of classes and seed to a head.
    """

    name: str
    first: Parameters
    draw: Callable[[np.random.Generator], Parameters]
    fit: Callable[[NDArray[np.float32], NDArray[np.int64], Mapping[str, Any], int, int], SavedModule]


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(f"{math.exp(rng.uniform(math.log(low), math.log(high))):.3g}")


def _fit_logistic(x: NDArray[np.float32], y: NDArray[np.int64], settings: Mapping[str, Any], classes: int, seed: int) -> SavedModule:
    model = LogisticRegression(C=settings["C"], max_iter=400, tol=1e-4, class_weight=settings.get("class_weight"))
    return LinearHead.from_sklearn(model.fit(x, y))


def _fit_svm(x: NDArray[np.float32], y: NDArray[np.int64], settings: Mapping[str, Any], classes: int, seed: int) -> SavedModule:
    gamma = settings["gamma"] / x.shape[1]
    targets = [1] if classes == 2 else list(range(classes))
    machines = [SVC(C=settings["C"], gamma=gamma, cache_size=500, random_state=seed % 2**32).fit(x, y == one) for one in targets]
    return KernelHead.from_sklearn(machines, gamma)


def _fit_trees(x: NDArray[np.float32], y: NDArray[np.int64], settings: Mapping[str, Any], classes: int, seed: int) -> SavedModule:
    model = ExtraTreesClassifier(
        n_estimators=settings["trees"],
        max_features=settings["max_features"],
        min_samples_leaf=settings["min_leaf"],
        max_depth=14,
        random_state=seed % 2**32,
        n_jobs=1,
    )
    return ForestHead.from_sklearn(model.fit(x, y))


def _fit_forest(x: NDArray[np.float32], y: NDArray[np.int64], settings: Mapping[str, Any], classes: int, seed: int) -> SavedModule:
    model = RandomForestClassifier(
        n_estimators=settings["trees"],
        max_features=settings["max_features"],
        min_samples_leaf=settings["min_leaf"],
        max_depth=14,
        random_state=seed % 2**32,
        n_jobs=1,
    )
    return ForestHead.from_sklearn(model.fit(x, y))


def _fit_boosting(x: NDArray[np.float32], y: NDArray[np.int64], settings: Mapping[str, Any], classes: int, seed: int) -> SavedModule:
    # Stochastic (Friedman, Computational Statistics & Data Analysis 38, 2002): a few features a split, half of the samples a tree.
    # On large sets fewer trees: a fit that takes minutes would keep others from their turn.
    affordable = max(20, _BOOSTED_SAMPLES // (len(x) * classes))
    model = GradientBoostingClassifier(
        n_estimators=min(settings["trees"], affordable),
        learning_rate=settings["rate"],
        max_depth=settings["depth"],
        subsample=0.6,
        max_features=max(1, min(x.shape[1], round(settings["width"] * math.sqrt(x.shape[1])))),
        random_state=seed % 2**32,
    )
    return BoostedHead.from_sklearn(model.fit(x, y), x[:1])


def _fit_neighbours(x: NDArray[np.float32], y: NDArray[np.int64], settings: Mapping[str, Any], classes: int, seed: int) -> SavedModule:
    count = min(settings["neighbours"], len(x))
    model = KNeighborsClassifier(count, weights=dudani_weights, algorithm="brute")
    return NeighboursHead.from_sklearn(model.fit(x, y), x, y)


def _fit_perceptron(x: NDArray[np.float32], y: NDArray[np.int64], settings: Mapping[str, Any], classes: int, seed: int) -> SavedModule:
    model = MLPClassifier(
        hidden_layer_sizes=(settings["hidden"],),
        alpha=settings["alpha"],
        learning_rate_init=2e-3,
        max_iter=settings["epochs"],
        batch_size=min(64, len(x)),
        random_state=seed % 2**32,
    )
    return PerceptronHead.from_sklearn(model.fit(x, y))


FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Family("logistic", {"C": 0.03}, lambda rng: {"C": _log_uniform(rng, 1e-4, 3.0)}, _fit_logistic),
        Family(
            "svm",
            {"C": 3.0, "gamma": 0.7},
            lambda rng: {"C": _log_uniform(rng, 0.3, 50.0), "gamma": _log_uniform(rng, 0.1, 3.0)},
            _fit_svm,
        ),
        Family(
            "trees",
            {"trees": 200, "max_features": 0.1, "min_leaf": 1},
            lambda rng: {"trees": 200, "max_features": float(rng.choice([0.03, 0.1, 0.3])), "min_leaf": int(rng.choice([1, 2, 4]))},
            _fit_trees,
        ),
        Family(
            "perceptron",
            {"hidden": 64, "alpha": 1.0, "epochs": 40},
            lambda rng: {
                "hidden": int(rng.choice([32, 64, 128])),
                "alpha": _log_uniform(rng, 0.01, 30.0),
                "epochs": int(rng.choice([20, 40, 80])),
            },
            _fit_perceptron,
        ),
        Family(
            "neighbours",
            {"neighbours": 9},
            lambda rng: {"neighbours": int(rng.choice([2, 3, 5, 7, 13, 19, 29, 43]))},
            _fit_neighbours,
        ),
        Family(
            "forest",
            {"trees": 200, "max_features": 0.1, "min_leaf": 1},
            lambda rng: {"trees": 200, "max_features": float(rng.choice([0.03, 0.1, 0.3])), "min_leaf": int(rng.choice([1, 2, 4]))},
            _fit_forest,
        ),
        Family(
            "boosting",
            {"trees": 150, "rate": 0.1, "depth": 3, "width": 1.0},
            lambda rng: {
                "trees": int(rng.choice([75, 150, 300])),
                "rate": _log_uniform(rng, 0.03, 0.2),
                "depth": int(rng.choice([2, 3, 4])),
                "width": float(rng.choice([0.5, 1.0, 2.0])),
            },
            _fit_boosting,
        ),
    )
}


@dataclass(slots=True)
class ClassicalFit:
    """What `search_family` found.

    Parameters
    ----------
    head
        From raw features ``(N, D)`` to logits, fitted on all samples.
    parameters
        The best settings.
    logits
        ``(N, K)`` held-out logits: each sample's from the fit that did not see its fold; NaN where a sample is in no fold.
    log_loss
        Of those, after temperature scaling.
    tried
        Number of settings tried.
    """

    head: SavedModule
    parameters: Parameters
    logits: NDArray[np.float32]
    log_loss: float
    tried: int


def head_logits(head: SavedModule, features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Run a head on ``(N, D)``."""
    with torch.inference_mode():
        logits: NDArray[np.float32] = head(torch.from_numpy(np.ascontiguousarray(features))).float().numpy()
    return logits


def held_out_logits(
    family: Family,
    settings: Mapping[str, Any],
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    folds: NDArray[np.int64],
    *,
    classes: int,
    seed: int,
    deadline: float,
) -> NDArray[np.float32]:
    """Give held-out logits by folds, fold 0 first; NaN for folds that the time did not reach."""
    logits = np.full((len(labels), classes), np.nan, dtype=np.float32)
    for fold in sorted(set(folds.tolist()) - {-1}):
        if fold > 0 and time.time() > deadline:
            break
        inside = folds == fold
        # With a single fold of everything there is nothing else to fit on: the figures are then optimistic, and the plan says so.
        outside = ~inside if (~inside).any() else inside
        head = fit_head(family, features[outside], labels[outside], settings, classes, seed)
        logits[inside] = head_logits(head, features[inside])
    return logits


def fit_head(
    family: Family, features: NDArray[np.float32], labels: NDArray[np.int64], settings: Mapping[str, Any], classes: int, seed: int
) -> SavedModule:
    """Fit a family with settings: from raw features ``(N, D)`` and labels to a head that takes raw features."""
    standardise = Standardise.fit(features)
    if labels.ndim == 2:
        return Chain([standardise, _fit_labels(family, standardise.apply_numpy(features), labels, settings, seed)]).eval()
    with warnings.catch_warnings():
        # Neither matters for choosing by held-out loss.
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.simplefilter("ignore", UserWarning)
        head = family.fit(standardise.apply_numpy(features), labels, settings, classes, seed)
    return Chain([standardise, head]).eval()


def _fit_labels(
    family: Family, features: NDArray[np.float32], labels: NDArray[np.int64], settings: Mapping[str, Any], seed: int
) -> OneAgainstRest:
    parts: list[SavedModule | None] = []
    constants = np.zeros(labels.shape[1])
    for index in range(labels.shape[1]):
        column = labels[:, index]
        count = int(column.sum())
        if 0 < count < len(column):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                warnings.simplefilter("ignore", UserWarning)
                parts.append(family.fit(features, column, settings, 2, seed))
        else:
            # All have it, or none: that is all there is to say of it.
            parts.append(None)
            constants[index] = math.log((count + 0.5) / (len(column) - count + 0.5))
    head = OneAgainstRest(parts)
    head.constant.copy_(torch.from_numpy(constants))
    return head


def search_family(
    name: str,
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    folds: NDArray[np.int64],
    *,
    classes: int,
    seed: int,
    tries: int,
    deadline: float,
    last: float | None = None,
) -> ClassicalFit:
    """Search one family's settings and fit the best on everything.

    Parameters
    ----------
    name
        Of `FAMILIES`.
    features
        ``(N, D)`` float32.
    labels
        ``(N,)``, from 0; or ``(N, K)`` of 0 and 1 where a sample may have several: one classifier against the rest for each.
    folds
        ``(N,)``; see `oteo_automl.search.folds.make_folds`.
    classes
        K.
    seed
        Of every draw.
    tries
        Settings to try at most.
    deadline
        Seconds since 1970; at least one setting is tried.
    last
        Until when the first setting may go on with its folds; None: until the deadline. Answers on a part of the folds alone cannot be told from
        luck, nor mixed with those of others.

    Raises
    ------
    ValueError
        The family is not meant for so many samples.
    """
    family = FAMILIES[name]
    if len(labels) > _LIMITS.get(name, len(labels)):
        raise ValueError(f"{name} on {len(labels)} images would take too long to fit or to answer; {_LIMITS[name]} at most")
    rng = np.random.Generator(np.random.Philox(key=seed))
    best: tuple[float, Parameters, NDArray[np.float32]] | None = None
    tried, begun, dearest = 0, time.time(), 0.0
    while tried < tries and (best is None or time.time() + 1.5 * dearest < deadline):
        started = time.time()
        settings = dict(family.first) if tried == 0 else family.draw(rng)
        until = deadline if tried or last is None else max(deadline, last)
        logits = held_out_logits(family, settings, features, labels, folds, classes=classes, seed=seed, deadline=until)
        loss = held_out_loss(logits, labels)
        tried += 1
        dearest = max(dearest, time.time() - started)
        if best is None or loss < best[0]:
            best = (loss, settings, logits)
    if best is None:
        raise ValueError(f"no setting was tried in {time.time() - begun:.1f} s")
    head = fit_head(family, features, labels, best[1], classes, seed)
    return ClassicalFit(head, best[1], best[2], best[0], tried)


def held_out_loss(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Give the log loss after temperature (several labels: Platt's) scaling over the samples that have logits, nats."""
    known = np.isfinite(logits).all(axis=1)
    if labels.ndim == 2:
        return fit_labels(logits[known], labels[known]).log_loss_after
    return fit_temperature(logits[known], labels[known]).log_loss_after
