"""From what the search hands over to what `oteo_automl.finish.finish` takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from oteo_automl.candidates.bank import spread_rows
from oteo_automl.candidates.registry import BASELINE
from oteo_automl.packaging.served import ServedClassifier, ServedLabels
from oteo_automl.publishing import REFERENCE_IMAGES
from oteo_automl.report.curves import learning_curve
from oteo_automl.report.gather import compare_candidates
from oteo_automl.report.rivals import left_unsaid
from oteo_automl.search.fingerprint import class_counts
from oteo_automl.search.result import FittedCandidate, SearchResult
from oteo_automl.winner import CalibrationPart, Rival, TestPart, Winner
from oteo_core.datasets import DatasetReader
from oteo_core.errors import FailedPrecondition, InvalidArgument
from oteo_core.evaluation.calibration import fit_temperature
from oteo_core.evaluation.label_calibration import fit_labels
from oteo_core.evaluation.operating import OperatingRequest
from oteo_core.evaluation.statistics import Significance, fold_table
from oteo_core.graphs.running import run_torch
from oteo_core.images import ImageLimits


class SearchData(Protocol):
    """What is used of the search's own samples: row ``i`` everywhere is the same sample.

    Attributes
    ----------
    samples, groups, sequences
        Ids, groups and stacks or clips, N each; see `oteo_automl.search.data.TrainingData`.
    labels
        ``(N,)`` int64, indices of `SearchResult.classes`.
    images
        Prepared images ``(N, H, W, C)``.
    """

    samples: list[str]
    groups: list[str]
    sequences: list[str]
    labels: NDArray[np.int64]
    images: NDArray[Any]

    def part(self, *names: str) -> NDArray[np.int64]:
        """Give the rows of "train", "validation" or "test"."""


def make_winner(
    result: SearchResult,
    data: SearchData,
    reader: DatasetReader,
    *,
    model_id: str,
    display_name: str = "",
    conformal_coverage: float = 0.9,
    operating_points: Sequence[OperatingRequest] = (),
    seed: int = 0,
    budget: float = 0.0,
    start_time: float = 0.0,
    run_id: str = "",
    labels: Mapping[str, str] | None = None,
    limits: ImageLimits = ImageLimits(),  # noqa: B008 (a frozen value)
) -> Winner:
    """Gather what is published of a search.

    Parameters
    ----------
    result
        The search's result.
    data
        All samples, prepared. The test part is looked at here, for the first time.
    reader
        The dataset, for its manifest, source paths and original pixels.
    model_id, display_name
        Of the model to be made.
    conformal_coverage, operating_points
        Asked for; a coverage of 0 is 0.9.
    seed, budget, start_time
        Seed; seconds; when the work began, seconds since the epoch.
    run_id, labels
        In MLflow; free labels.
    limits
        Of decoding.

    Raises
    ------
    InvalidArgument
        ``UNKNOWN_CLASS``: an operating point for a class that was not trained.
    FailedPrecondition
        ``NO_TEST_PART``: there is no test image to judge on.
    """
    for point in operating_points:
        if point.class_name not in result.classes:
            raise InvalidArgument(
                f"an operating point for class {point.class_name!r}, which has no training images",
                reason="UNKNOWN_CLASS",
                field="operating_points",
            )
    places = data.part("test")
    if not len(places):
        raise FailedPrecondition(
            f"dataset {reader.info.id!r} has no test images of the classes that were trained, so that nothing could be said of a model's worth; "
            "split it anew",
            reason="NO_TEST_PART",
        )
    listed = {sample.id: sample for sample in reader.samples("test", columns=["path", "source_path", "labels"])}
    ids = [data.samples[place] for place in places]
    images = data.images[places]
    best = result.best
    several = data.labels.ndim == 2
    train = data.part("train")
    derived = {sample.id for sample in reader.samples("train", columns=["derived_from"]) if sample.derived_from}
    original = [int(place) for place in train if data.samples[place] not in derived] or train.tolist()
    # Evenly spread over the part where there are more than are looked at.
    looked_at = [original[position] for position in spread_rows(len(original), REFERENCE_IMAGES)]
    rivals = _rivals(result, images)
    return Winner(
        model_id=model_id,
        display_name=display_name or reader.info.display_name or model_id,
        dataset=reader.info,
        classes=result.classes,
        candidate=best.candidate,
        network=best.module,
        policy=best.input_policy,
        calibration=CalibrationPart(best.validation.logits, best.validation.labels, best.validation.source),
        test=TestPart(
            ids=ids,
            sources=[listed[name].source_path or listed[name].path for name in ids],
            groups=[data.groups[place] for place in places],
            labels=data.labels[places],
            images=images,
            sequences=[data.sequences[place] for place in places],
            pixels=lambda index: reader.image(listed[ids[index]], limits).pixels,
        ),
        training_images=(np.asarray(data.images[place]) for place in looked_at),
        training_groups=[data.groups[place] for place in looked_at],
        training_labels=data.labels[looked_at],
        training_counts=class_counts(data.labels[train], len(result.classes)).tolist(),
        rivals=rivals,
        not_compared=left_unsaid(
            _named(best),
            None if result.runner_up is None else _named(result.runner_up),
            _named(result.baseline),
            {rival.trial_id for rival in rivals},
        ),
        trials=result.trials,
        winner_trial=best.trial_id,
        curves=[
            learning_curve(_name(result, trial), records, best=trial == best.trial_id)
            for trial, records in result.curves.items()
            if records
        ],
        plan=result.plan.summary,
        significance=_significance(result),
        growth=result.growth,
        objective=result.objective,
        conformal_coverage=conformal_coverage or 0.9,
        operating_points=operating_points,
        seed=seed,
        budget=budget,
        start_time=start_time,
        run_id=run_id,
        labels=labels or {},
        details={
            "initial_weights": best.initial_weights,
            "parameters": best.parameters,
            "device": result.plan.device,
            "fingerprint": result.plan.fingerprint,
            "folds": result.plan.folds,
            "candidates": [asdict(candidate) for candidate in result.plan.candidates],
            "search_seconds": result.seconds,
            "search_steps": result.plan.steps,
            "test_images_of_other_classes": 0 if several else sum(bool(sample.labels) for sample in listed.values()) - len(ids),
        },
    )


def _rivals(result: SearchResult, images: NDArray[Any]) -> list[Rival]:
    rivals: list[Rival] = []
    taken = {result.best.trial_id}
    for role, candidate in (("the runner-up", result.runner_up), ("the baseline", result.baseline)):
        if candidate is None or candidate.trial_id in taken:
            continue
        taken.add(candidate.trial_id)
        served = _served(candidate)
        probabilities = run_torch(served, images)[0].astype(np.float64)
        rivals.append(Rival(f"{candidate.candidate} ({role})", probabilities, candidate.trial_id, served))
    return rivals


def _named(candidate: FittedCandidate) -> tuple[str, str]:
    return candidate.trial_id, candidate.candidate


def _served(candidate: FittedCandidate) -> torch.nn.Module:
    """Give a rival calibrated as the winner is, so that log-losses can be compared."""
    logits, labels = candidate.validation.logits, candidate.validation.labels
    served: torch.nn.Module
    if labels.ndim == 2:
        calibration = fit_labels(logits, labels)
        served = ServedLabels(candidate.module, calibration.scale.tolist(), calibration.bias.tolist())
    else:
        served = ServedClassifier(candidate.module, fit_temperature(logits, labels).temperature)
    return served.cpu().float().eval()


def _name(result: SearchResult, trial_id: str) -> str:
    names = {trial.id: trial.candidate for trial in result.trials}
    return names.get(trial_id, trial_id)


def _significance(result: SearchResult) -> Significance | None:
    """Test whether the candidates that were cross-validated differ."""
    table = fold_table(result.fold_scores, "accuracy")
    return None if table is None else compare_candidates(table, "classification", BASELINE)
