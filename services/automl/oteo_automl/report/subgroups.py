"""The task's figure on parts of the test images: folders, sizes, colour and depth, numbers of objects, sequences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from oteo_automl.judging.subgroups import divide
from oteo_automl.report.audits import find_audit
from oteo_automl.report.data import ReportData, Subgroup
from oteo_core.artifacts import ArtifactStore
from oteo_core.datasets import DatasetReader, Sample
from oteo_core.errors import OteoError
from oteo_core.evaluation.bootstrap import Floats, Ints, bootstrap, encode_groups, generator, percentile_interval, wilson_interval
from oteo_core.evaluation.scored import score_answers

LEAST_IMAGES = 8
"""So many images a part must have."""

MOST_PARTS = 12
"""So many parts are shown; the largest of each kind come first."""

_METRICS = {
    "classification": "accuracy",
    "multi_label_classification": "mean_average_precision",
    "detection": "map50",
    "semantic_segmentation": "dice",
    "instance_segmentation": "pq",
}
_RESAMPLES = 300
_SECONDS_AN_IMAGE = 0.02
_KINDS = ("source_folder", "sequence", "image_size", "pixel_type", "object_count")


def fill_in(
    data: ReportData,
    store: ArtifactStore,
    *,
    ids: Sequence[str],
    groups: Sequence[str] | None,
    truths: Sequence[Any],
    answers: Sequence[Any],
    thresholds: float | Sequence[float] | None = None,
    seconds: float = 60.0,
) -> None:
    """Add what an audit of the dataset found, and the figures by subgroup, to a report.

    Parameters
    ----------
    data
        The report.
    store
        Where the dataset and its audits lie.
    ids, groups, truths, answers, thresholds
        Of the N test images, as `oteo_core.evaluation.scored.score_answers` takes them.
    seconds
        That there are; with too few for so many images the subgroups are left out.
    """
    package = data.package
    data.audit = find_audit(store, data.dataset)
    if seconds < _SECONDS_AN_IMAGE * len(ids):
        return
    metric = _METRICS[package.task]
    scored = score_answers(package.task, len(package.classes), truths, answers, thresholds)
    data.subgroups = subgroups_of(store, data.dataset.id, package.task, ids, groups, scored.one(metric), metric, seed=package.seed)


def subgroups_of(
    store: ArtifactStore,
    dataset: str,
    task: str,
    ids: Sequence[str],
    groups: Sequence[str] | None,
    score: Callable[[Floats], Floats],
    metric: str,
    *,
    seed: int = 0,
) -> list[Subgroup]:
    """Measure the figure on parts of the test images.

    Parameters
    ----------
    store, dataset
        Where the dataset lies, and its id; its rows say what the parts are.
    task
        Of the model.
    ids, groups
        Of the N test images, in the order of the weights; groups for the intervals.
    score
        From weights of the images ``(B, N)`` to the figure ``(B,)``: `oteo_core.evaluation.scored.Scored.one`.
    metric
        The figure's name.
    seed
        Of the resamples.

    Returns
    -------
    list of Subgroup
        Empty where the images cannot be told apart, or the dataset is gone: a report does not fail for it.
    """
    try:
        rows = {sample.id: sample for sample in DatasetReader(store, dataset).samples()}
    except OteoError:
        return []
    if not all(name in rows for name in ids):
        return []
    samples: list[Sample] = [rows[name] for name in ids]
    numbers = encode_groups(groups, len(ids))
    found: list[Subgroup] = []
    for kind in _KINDS:
        parts, _ = divide(samples, task, (kind,))
        shown = [part for part in parts if len(part.rows) >= LEAST_IMAGES]
        if not 2 <= len(shown) <= MOST_PARTS or len(found) + len(shown) > MOST_PARTS:
            continue
        if (
            kind == "source_folder"
            and all(len({samples[row].labels for row in part.rows}) == 1 for part in parts)
            and any(samples[0].labels)
        ):
            continue  # Folders that are the classes; those have a table of their own.
        for part in shown:
            value, lower, upper = _measure(score, np.array(part.rows, dtype=np.int64), numbers, seed, f"{kind} {part.value}")
            if np.isfinite(value):
                found.append(Subgroup(kind.replace("_", " "), part.value, len(part.rows), value, lower, upper, metric))
    return found


def _measure(score: Callable[[Floats], Floats], rows: Ints, groups: Ints, seed: int, what: str) -> tuple[float, float | None, float | None]:
    own = encode_groups([str(group) for group in groups[rows]], len(rows))

    def on_part(weights: Floats) -> Floats:
        whole = np.zeros((len(weights), len(groups)))
        whole[:, rows] = weights
        return score(whole)[:, None]

    value = float(on_part(np.ones((1, len(rows))))[0, 0])
    interval = percentile_interval(bootstrap(on_part, own, generator(seed, "subgroup", what), _RESAMPLES)[:, 0])
    if interval is not None and interval.upper - interval.lower < 1e-12 and 0 <= value <= 1:
        # All resamples agree (no mistake at all): that is no certainty.
        interval = wilson_interval(value, int(own.max()) + 1)
    return value, interval.lower if interval else None, interval.upper if interval else None
