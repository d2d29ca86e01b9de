"""The pieces of a search as they run in a worker: a classifier on fixed features, or epochs of a network's training.

Every piece leaves its result among the checkpoints before it returns, and takes one that is there as it is: a search that was killed does
not pay for it twice.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from oteo_automl.candidates import classical
from oteo_automl.candidates.bank import normalisation, some_rows
from oteo_automl.candidates.checkpoints import Given, load_given
from oteo_automl.candidates.classification import ClassificationLesson, TrainingRows
from oteo_automl.candidates.descriptors import DESCRIPTORS, Descriptors
from oteo_automl.candidates.lesson import Judgement
from oteo_automl.candidates.modules import Chain, SavedModule, dump_module, load_module, load_with_more
from oteo_automl.candidates.networks import NetworkClassifier
from oteo_automl.candidates.patches import fit_patches
from oteo_automl.candidates.portfolio import find_architecture
from oteo_automl.candidates.registry import FROZEN, Candidate
from oteo_automl.candidates.training import STATISTICS_IMAGES, Recipe, Trainer, has_bfloat16, runs_on
from oteo_automl.candidates.weights import Weights, find_weights, load_weights
from oteo_automl.search.checkpoints import Checkpoints
from oteo_automl.search.data import ArrayCache, ImageCache
from oteo_automl.search.ensemble import measure_latency
from oteo_automl.search.guards import FoldCheck, check_folds, one_answer
from oteo_automl.search.pieces import FOLDS_OF, PieceResult, model_name, result_name
from oteo_automl.search.probe import Probe, measure, memory_limit
from oteo_automl.search.scoring import score
from oteo_automl.search.training_piece import Begun, train_piece
from oteo_core.evaluation.calibration import negative_log_likelihood
from oteo_core.evaluation.data_curve import DataCurve, measure_data_curve, no_curve
from oteo_core.evaluation.label_calibration import label_log_loss, level

PATCH_CENTRES = 160
_FEATURE_BATCH = 8
_WHOLE = 3.0
_SAME = 1e-4
_PATCH_IMAGES = 1024
_GROWTH_HELD_OUT = 30
_GROWTH_LEARNT = 40


@dataclass(frozen=True)
class Problem:
    """What all pieces of a search share; sent to workers.

    Parameters
    ----------
    cache
        The images.
    labels
        ``(N,)`` of all images.
    rows
        Rows of the training and validation parts.
    folds
        Fold of each of `rows`; what every candidate is compared on is fold 0.
    fold_count
        Number of folds; 0 where there is too little to hold anything out, and figures are of the training images themselves.
    classes
        K.
    seed
        Of every draw.
    checkpoints
        Where results and states lie.
    pretrained_uri
        Where weights lie; empty: none.
    scratch
        Local folder for features.
    given
        Checkpoints of others that were read, by the candidate's name.
    objective
        What trials are compared by.
    """

    cache: ImageCache | ArrayCache
    labels: NDArray[np.int64]
    rows: NDArray[np.int64]
    folds: NDArray[np.int64]
    fold_count: int
    classes: int
    seed: int
    checkpoints: Checkpoints
    pretrained_uri: str = ""
    scratch: str = ""
    given: Mapping[str, Given] = field(default_factory=dict)
    objective: str = "log_loss"

    @property
    def held_out(self) -> NDArray[np.int64]:
        """Rows that candidates are compared on."""
        rows: NDArray[np.int64] = self.rows[self.folds == 0]
        return rows

    @property
    def learnt_from(self) -> NDArray[np.int64]:
        """Rows that may be learnt from while those are held out."""
        return self.rows if self.fold_count == 0 else self.rows[self.folds != 0]


@dataclass(slots=True)
class StoredModel:
    """A fitted module with its held-out logits, as it lies among the checkpoints.

    ``rows`` are rows of the data, ``logits`` theirs; ``source`` says in words what was held out.
    """

    module: SavedModule
    rows: NDArray[np.int64]
    logits: NDArray[np.float32]
    source: str

    def to_bytes(self) -> bytes:
        """Write it."""
        rows, logits = (torch.from_numpy(np.ascontiguousarray(one)) for one in (self.rows, self.logits))
        return dump_module(self.module, rows=rows, logits=logits, source=self.source)

    @classmethod
    def from_bytes(cls, data: bytes) -> StoredModel:
        """Read what `to_bytes` wrote."""
        module, content = load_with_more(data)
        return cls(module, content["rows"].numpy(), content["logits"].numpy(), content["source"])


# Classifiers on fixed features.


def fit_classifier(
    problem: Problem, trial: str, candidate: Candidate, tries: int, deadline: float, seconds: float = math.inf
) -> PieceResult:
    """Search a family of classifiers on one kind of features; the piece of a classical trial.

    Settings are tried for `seconds` from when the features are there, the first of them on all folds in up to `_WHOLE` times as long; nothing goes on after
    the `deadline`.
    """
    earlier = problem.checkpoints.load(result_name(trial, 0))
    if earlier is not None:
        return PieceResult.from_json(earlier)
    began = time.time()
    images = problem.cache.open()
    extractor, initial = _extractor(problem, candidate.features, images)
    features = _features(problem, candidate.features, extractor, images)
    labels = problem.labels[problem.rows]
    ready = time.time()
    found = classical.search_family(
        candidate.family,
        features,
        labels,
        problem.folds,
        classes=problem.classes,
        seed=problem.seed,
        tries=tries,
        deadline=min(deadline, ready + seconds),
        last=min(deadline, ready + _WHOLE * seconds),
    )
    known = np.isfinite(found.logits).all(axis=1)
    compared = known & (problem.folds == 0)
    folds = len(set(problem.folds[known].tolist()))
    if problem.fold_count == 0:
        source = "the training images themselves (there are too few to hold any out)"
    elif folds > 1:
        source = f"the training and validation parts, cross-validated ({folds} folds by group)"
    else:
        source = "the validation part"
    check = _check_folds(problem, found.logits, labels)
    known &= ~np.isin(problem.folds, check.broken)
    model = StoredModel(Chain([extractor, found.head]).eval(), problem.rows[known], found.logits[known], source)
    problem.checkpoints.save(model_name(trial), model.to_bytes())
    result = PieceResult(
        scores=score(found.logits[compared], labels[compared]),
        seconds=time.time() - began,
        parameters={**found.parameters, "classifier": candidate.family, "features": candidate.features, "settings_tried": found.tried},
        initial_weights=initial,
        message=check.message,
        collapsed=_collapsed(found.logits[compared], labels[compared]),
        latency=measure_latency(model.module, images[problem.rows[0]]),
        fold_scores=fold_scores(problem.folds[known], found.logits[known], labels[known]),
    )
    problem.checkpoints.save(result_name(trial, 0), result.to_json())
    return result


def fold_scores(folds: NDArray[np.int64], logits: NDArray[np.float32], labels: NDArray[np.int64]) -> dict[str, float]:
    """Give the accuracy of each fold, by its number, of its rows' answers ``(N, K)``; nothing where images have several labels."""
    if labels.ndim > 1:
        return {}
    right = logits.argmax(axis=1) == labels
    return {str(number): float(right[folds == number].mean()) for number in sorted(set(folds.tolist()) - {-1})}


def _check_folds(problem: Problem, logits: NDArray[np.float32], labels: NDArray[np.int64]) -> FoldCheck:
    """Look for folds that failed or lie far below their siblings; fold 0, which candidates are compared on, is never left out."""
    numbers = sorted(set(problem.folds.tolist()) - {-1})
    if problem.fold_count < 2:
        return FoldCheck()
    losses, same, names = [], [], []
    temperature = 1.0
    everything = np.isfinite(logits).all(axis=1)
    if everything.any():
        temperature = level(logits[everything], labels[everything])[1]
    for number in numbers:
        inside = problem.folds == number
        if np.isnan(logits[inside]).all():
            # The time did not reach it.
            continue
        finite = bool(np.isfinite(logits[inside]).all())
        losses.append(log_loss_of(logits[inside], labels[inside], temperature))
        same.append(finite and _collapsed(logits[inside], labels[inside]))
        names.append(number)
    check = check_folds(losses, same, names=names)
    return replace(check, broken=tuple(one for one in check.broken if one))


def log_loss_of(logits: NDArray[Any], labels: NDArray[np.int64], temperature: float) -> float:
    """Give the mean log loss of logits ``(N, K)`` at a temperature; infinite where one is not finite."""
    if not np.isfinite(logits).all():
        return math.inf
    logits = logits.astype(np.float64)
    return label_log_loss(logits / temperature, labels) if labels.ndim == 2 else negative_log_likelihood(logits, labels, temperature)


def _collapsed(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> bool:
    """Say whether all samples get the same answer: the same class, or for several labels the same logits."""
    if labels.ndim == 2:
        return len(logits) > 1 and bool((np.ptp(logits, axis=0) < _SAME).all())
    return one_answer(logits.argmax(axis=1), labels)


def refit(problem: Problem, module: SavedModule, trial: str) -> SavedModule:
    """Give a trial's classifier on features as it is without the held-out rows; a network, which never saw them, as it is."""
    stored = problem.checkpoints.load(result_name(trial, 0))
    parameters = PieceResult.from_json(stored).parameters if stored is not None else {}
    if FOLDS_OF in parameters:
        # The networks of the other folds have learnt from the held-out rows: the one that has not stands for all.
        first = problem.checkpoints.load(model_name(str(parameters[FOLDS_OF])))
        return module if first is None else StoredModel.from_bytes(first).module
    if "classifier" not in parameters or not isinstance(module, Chain) or problem.fold_count == 0:
        return module
    extractor = module.parts[0]
    if not isinstance(extractor, SavedModule):
        return module
    features = _features(problem, str(parameters["features"]), extractor, problem.cache.open())
    inside = problem.folds != 0
    family = classical.FAMILIES[str(parameters["classifier"])]
    labels = problem.labels[problem.rows]
    head = classical.fit_head(family, features[inside], labels[inside], parameters, problem.classes, problem.seed)
    return Chain([extractor, head]).eval()


def _extractor(problem: Problem, features: str, images: NDArray[Any]) -> tuple[SavedModule, str]:
    height, width, channels = images.shape[1:]
    if features in DESCRIPTORS:
        return Descriptors(height, width, channels, DESCRIPTORS[features]).eval(), "scratch"
    if features == "patches":
        name = "features/patches.pt"
        stored = problem.checkpoints.load(name)
        if stored is not None:
            return load_module(stored), "scratch"
        # Only images that are not held out, though no label is looked at.
        module = fit_patches(some_rows(images, problem.learnt_from, _PATCH_IMAGES), centres=PATCH_CENTRES, seed=problem.seed)
        problem.checkpoints.save(name, dump_module(module))
        return module, "scratch"
    architecture = features.removeprefix(FROZEN)
    network = NetworkClassifier(architecture, 0, channels, *normalisation(images, problem.learnt_from, pretrained=True))
    weights = find_weights(problem.pretrained_uri, architecture)
    if weights is None:
        raise FileNotFoundError(f"there are no weights of {architecture} at {problem.pretrained_uri}")
    load_weights(network.network, weights)
    return network.eval(), weights.source


def _features(problem: Problem, name: str, extractor: SavedModule, images: NDArray[Any]) -> NDArray[np.float32]:
    """Give the features of the problem's rows, from the file that an earlier piece on this machine left if there is one."""
    path = Path(problem.scratch) / f"features-{name}.npy" if problem.scratch and Path(problem.scratch).is_dir() else None
    if path is not None and path.exists():
        stored: NDArray[np.float32] = np.load(path)
        return stored
    parts = []
    with torch.inference_mode():
        for start in range(0, len(problem.rows), _FEATURE_BATCH):
            batch = torch.from_numpy(np.ascontiguousarray(images[problem.rows[start : start + _FEATURE_BATCH]]))
            parts.append(extractor(batch).float().numpy())
    features: NDArray[np.float32] = np.concatenate(parts)
    if path is not None:
        partial = path.with_name(f"{path.stem}.{os.getpid()}.npy")
        np.save(partial, features)
        partial.replace(path)
    return features


# Networks.


def train_network(
    problem: Problem,
    trial: str,
    rung: int,
    architecture: str,
    recipe: Recipe,
    target: int,
    total: int,
    deadline: float,
    *,
    watched: bool = True,
) -> PieceResult:
    """Train a network up to an epoch; the piece of a network's trial.

    Where it is not `watched`, it is not compared with others on the way.

    Raises
    ------
    Diverged
        The loss is not finite.
    """

    def begin() -> Begun:
        images = problem.cache.open()
        network, initial = first_network(problem, architecture, images, recipe)
        lesson = _lesson(problem, images, total)
        return Begun(
            trainer=Trainer(network, lesson, recipe, seed=problem.seed, device=runs_on(), half=wants_half(problem, architecture)),
            initial_weights=initial,
            image=images[problem.rows[0]],
            judge_every=judging_interval(len(problem.learnt_from), len(problem.held_out)) if watched else total,
            by_score=problem.objective != "log_loss",
            stored=stored,
        )

    def stored(network: SavedModule, judgement: Judgement) -> bytes:
        alone = "the training images themselves (there are too few to hold any out)"
        source = alone if problem.fold_count == 0 else "the validation part"
        return StoredModel(network, problem.held_out, judgement.kept["logits"], source).to_bytes()

    return train_piece(problem.checkpoints, trial, rung, begin, recipe, target, total, deadline, watched=watched)


def judging_interval(learnt_from: int, held_out: int) -> int:
    """Give the epochs between two judgements, such that these take about an eighth of the time.

    A judgement shows the network clean training images (for batch normalisation) and those that are held out, each for a third of what it costs to
    learn from one: of a small set as much as nearly half an epoch.
    """
    shown = min(STATISTICS_IMAGES, learnt_from) + held_out
    return max(1, round(shown / 3.0 / (0.125 * max(1, learnt_from))))


def probe_network(problem: Problem, architecture: str, recipe: Recipe, deadline: float, share: float) -> Probe:
    """Measure a network's training; `share` of the free memory is its own."""
    images = problem.cache.open()

    def make() -> NetworkClassifier:
        given = problem.given.get(architecture)
        name = given.architecture if given is not None else architecture
        return make_network(name, problem.classes, images, problem.learnt_from, recipe, None, problem.seed)

    return measure(
        make,
        _lesson(problem, images),
        recipe,
        seed=problem.seed,
        device=runs_on(),
        half=wants_half(problem, architecture),
        deadline=deadline,
        limit=memory_limit(runs_on(), share),
    )


def _lesson(problem: Problem, images: NDArray[Any], epochs: int = 0) -> ClassificationLesson:
    rows = TrainingRows(images, problem.labels, problem.learnt_from, problem.held_out, problem.classes)
    return ClassificationLesson(rows, problem.seed, epochs)


def wants_half(problem: Problem, architecture: str) -> bool:
    """Say whether bfloat16 is faster for a network on this processor."""
    given = problem.given.get(architecture)
    try:
        return find_architecture(given.architecture if given is not None else architecture).half and has_bfloat16()
    except KeyError:
        return False


def first_network(problem: Problem, architecture: str, images: NDArray[Any], recipe: Recipe) -> tuple[NetworkClassifier, str]:
    """Give the network that a training begins with, and where its weights come from; `architecture` may be a checkpoint's candidate."""
    given = problem.given.get(architecture)
    if given is not None:
        stored = problem.checkpoints.load(given.file)
        if stored is None:
            raise FileNotFoundError(f"{given.file} is gone from the training's checkpoints")
        return load_given(stored, recipe.drop), given.source
    weights = find_weights(problem.pretrained_uri, architecture)
    network = make_network(architecture, problem.classes, images, problem.learnt_from, recipe, weights, problem.seed)
    return network, weights.source if weights is not None else "scratch"


def make_network(
    architecture: str,
    classes: int,
    images: NDArray[Any],
    rows: NDArray[np.int64],
    recipe: Recipe,
    weights: Weights | None,
    seed: int,
) -> NetworkClassifier:
    """Make a network for images ``(N, H, W, C)``: with pretrained weights and their normalisation, or drawn anew and with that of `rows`."""
    channels = images.shape[3]
    torch.manual_seed(seed)
    mean, spread = normalisation(images, rows, pretrained=weights is not None)
    network = NetworkClassifier(architecture, classes, channels, mean, spread, drop_rate=recipe.drop)
    if weights is not None:
        load_weights(network.network, weights)
    return network


def measure_growth(
    problem: Problem, candidate: Candidate, parameters: Mapping[str, Any], groups: Sequence[str], *, seconds: float
) -> DataCurve:
    """Say what more images would bring about: a classifier on features is fitted again on parts of what it was fitted on.

    Parameters
    ----------
    problem
        The search's.
    candidate, parameters
        A classifier on fixed features, and the settings that were found for it.
    groups
        Of all samples of the data; parts are drawn by group.
    seconds
        No fit is begun after this time.

    Returns
    -------
    DataCurve
        Of the accuracy on the held-out images; of the mean average precision where images have several labels. Without any score, and with the
        reason, where too few images are there to see anything.
    """
    learnt = np.flatnonzero(problem.folds != 0)
    held = np.flatnonzero(problem.folds == 0)
    several = problem.labels.ndim > 1
    labels = problem.labels[problem.rows]
    metric = "mean_average_precision" if several else "accuracy"
    # Labels that some of the held-out images have and some have not: of others nothing can be said.
    told = [k for k in range(problem.classes) if 0 < labels[held, k].sum() < len(held)] if several else []
    if problem.fold_count == 0 or len(held) < _GROWTH_HELD_OUT or len(learnt) < _GROWTH_LEARNT or (several and not told):
        count = len(held) if problem.fold_count else 0
        few = f"it takes {_GROWTH_LEARNT} images to learn from and {_GROWTH_HELD_OUT} held out, and there are {len(problem.learnt_from)} and {count}"
        lacking = several and not told and count >= _GROWTH_HELD_OUT
        return no_curve(metric, candidate.name, "no label tells the held-out images apart" if lacking else few)
    images = problem.cache.open()
    features = _features(problem, candidate.features, _extractor(problem, candidate.features, images)[0], images)
    family = classical.FAMILIES[candidate.family]

    def fit_and_score(places: NDArray[np.int64]) -> float:
        rows = learnt[places]
        if several:
            shares = labels[rows][:, told].mean(axis=0)
            if ((shares == 0) | (shares == 1)).any():
                return math.nan
        elif len(np.unique(labels[rows])) < problem.classes:
            return math.nan
        head = classical.fit_head(family, features[rows], labels[rows], parameters, problem.classes, problem.seed)
        found = classical.head_logits(head, features[held])
        if several:
            return float(np.mean([average_precision_score(labels[held, k], found[:, k]) for k in told]))
        return float((found.argmax(axis=1) == labels[held]).mean())

    return measure_data_curve(
        fit_and_score,
        _rarest(labels[learnt]) if several else labels[learnt],
        [groups[int(row)] for row in problem.rows[learnt]],
        metric=metric,
        words="the mean average precision" if several else "",
        candidate=candidate.name,
        seed=problem.seed,
        seconds=seconds,
    )


def _rarest(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Give the rarest label that each sample has ``(N,)``, K where it has none, of labels ``(N, K)``: parts that keep its mix keep that of all labels."""
    counts = labels.sum(axis=0).astype(np.float64)
    found: NDArray[np.int64] = np.where(labels == 1, counts, np.inf).argmin(axis=1)
    return np.where(labels.any(axis=1), found, labels.shape[1]).astype(np.int64)
