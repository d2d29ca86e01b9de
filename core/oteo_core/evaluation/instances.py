"""How good an instance segmentation is: panoptic quality, average precision by masks, and aggregated Jaccard index."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oteo_core.evaluation.bootstrap import LEVEL, RESAMPLES, Floats, Ints
from oteo_core.evaluation.detection import ObjectScorer
from oteo_core.evaluation.matching import SIZES, THRESHOLDS, ImageMatches, match
from oteo_core.evaluation.resampled import Column, affordable, image_means, measure
from oteo_core.evaluation.scores import divide, mean_defined
from oteo_core.packages import MetricValue
from oteo_core.packages.answers import Instances

PANOPTIC = ("pq", "sq", "rq", "f1", "precision", "recall")
"""At IoU .5 over all answers, whatever their score; ``f1`` is ``rq``'s other name in cell segmentation."""

BY_IMAGE = ("aji", "map_dsb2018")
"""Means over the images: aggregated Jaccard index, and precision TP / (TP + FP + FN) averaged over IoU .5 to .95."""

PRECISIONS = ("map50_95", "map50", "map75")
"""COCO's average precision, by masks and scores."""

QUICK = (*PANOPTIC, *BY_IMAGE, *PRECISIONS)


@dataclass(frozen=True, slots=True)
class Overlaps:
    """Pixels that true and found objects of one image share.

    Parameters
    ----------
    shared
        ``(G, D)`` pixels in both.
    true_areas, found_areas
        ``(G,)`` and ``(D,)`` pixels, without what is left out of measuring.
    void
        ``(D,)`` bool: most of the found object lies in what is left out.
    """

    shared: Floats
    true_areas: Floats
    found_areas: Floats
    void: NDArray[np.bool_]

    @property
    def ious(self) -> Floats:
        """IoU ``(G, D)``."""
        return np.nan_to_num(divide(self.shared, self.true_areas[:, None] + self.found_areas[None] - self.shared))

    def of(self, true: Ints, found: Ints) -> Overlaps:
        """Give the part that speaks of these objects."""
        return Overlaps(self.shared[np.ix_(true, found)], self.true_areas[true], self.found_areas[found], self.void[found])


def overlap(truth: Instances, answer: Instances) -> Overlaps:
    """Count shared pixels.

    Raises
    ------
    ValueError
        Shapes differ.
    """
    if truth.ids.shape != answer.ids.shape:
        raise ValueError(f"an answer of shape {answer.ids.shape} for a truth of shape {truth.ids.shape}")
    known = truth.ids >= 0
    rows, columns = len(truth.labels) + 1, len(answer.labels) + 1
    pairs = truth.ids[known].astype(np.int64) * columns + np.maximum(answer.ids[known], 0)
    table = np.bincount(pairs, minlength=rows * columns).reshape(rows, columns).astype(np.float64)
    hidden = np.bincount(np.maximum(answer.ids[~known], 0), minlength=columns)[1:]
    inside = table.sum(axis=0)[1:]
    return Overlaps(table[1:, 1:], table.sum(axis=1)[1:], inside, (hidden > inside) | (inside == 0))


def aggregated_jaccard(pixels: Overlaps) -> float:
    """Give the aggregated Jaccard index of one image (Kumar et al., IEEE Trans. Med. Imaging 36, 2017); NaN without any object.

    Every true object is joined with the found one of largest IoU; found objects that no true one chose are added to the union.
    """
    counted = ~pixels.void
    if not len(pixels.true_areas):
        return 0.0 if counted.any() else float("nan")
    if not len(pixels.found_areas):
        return 0.0
    chosen = pixels.ious.argmax(axis=1)
    rows = np.arange(len(chosen))
    shared = pixels.shared[rows, chosen]
    joined = np.where(shared > 0, pixels.true_areas + pixels.found_areas[chosen] - shared, pixels.true_areas)
    counted[chosen[shared > 0]] = False
    return float(shared.sum() / (joined.sum() + pixels.found_areas[counted].sum()))


def match_class(
    truth: Instances, answer: Instances, pixels: Overlaps, class_index: int, sizes: Sequence[tuple[str, float, float]]
) -> tuple[Overlaps, ImageMatches]:
    """Match one class's found objects, the surest first, with its true ones; objects without a pixel of their own (hidden in what is left out) are not there.

    Parameters
    ----------
    truth, answer, pixels
        Of one image; `pixels` is their `overlap`.
    class_index
        The class.
    sizes
        As of `oteo_core.evaluation.matching.match`.
    """
    there = np.flatnonzero((truth.labels == class_index) & (pixels.true_areas > 0))
    mine = np.flatnonzero(answer.labels == class_index)
    mine = mine[np.argsort(-answer.scores[mine].astype(np.float64), kind="stable")]
    part = pixels.of(there, mine)
    matched = match(
        np.ascontiguousarray(part.ious.T),
        answer.scores[mine].astype(np.float64),
        part.found_areas,
        part.true_areas,
        np.zeros(len(there), dtype=np.bool_),
        sizes=sizes,
        void=part.void,
    )
    return part, matched


class InstanceScorer:
    """Computes all figures on any weighting of the images.

    Parameters
    ----------
    truths, found
        One each for every image, of equal shapes.
    classes
        Number of classes, K.
    by_size
        Whether average precision is computed by size too.
    """

    def __init__(self, truths: Sequence[Instances], found: Sequence[Instances], classes: int, *, by_size: bool = True) -> None:
        if len(truths) != len(found):
            raise ValueError(f"{len(found)} answers for {len(truths)} images")
        self.images, self.classes = len(truths), classes
        self._sums = np.zeros((self.images, classes, 4))
        self._averages = np.full((self.images, classes, len(BY_IMAGE)), np.nan)
        self._whole = np.full((self.images, len(BY_IMAGE)), np.nan)
        sizes = SIZES if by_size else SIZES[:1]
        matches: list[list[ImageMatches]] = [[] for _ in range(classes)]
        for index, (truth, answer) in enumerate(zip(truths, found, strict=True)):
            pixels = overlap(truth, answer)
            seen = pixels.true_areas > 0
            for class_index in range(classes):
                part, matched = match_class(truth, answer, pixels, class_index, sizes)
                self._sums[index, class_index], self._averages[index, class_index, 1] = _count(part)
                self._averages[index, class_index, 0] = aggregated_jaccard(part)
                matches[class_index].append(matched)
            everything = pixels.of(np.flatnonzero(seen), np.arange(len(answer.labels)))
            self._whole[index] = aggregated_jaccard(everything), _count(everything)[1]
        self._objects = ObjectScorer(matches, threshold=0.0)
        self._kept = [at for at, column in enumerate(self._objects.columns) if column.name.startswith("map")]
        self.work = self._objects.work
        self.columns = self._name()

    def _name(self) -> list[Column]:
        there = self._sums[:, :, 1:].sum(axis=2) > 0
        objects = self._sums[:, :, 1] + self._sums[:, :, 3]
        columns = [Column(name, -1, self.images, there.any(axis=1)) for name in (*PANOPTIC, *BY_IMAGE)]
        for index in range(self.classes):
            columns += [Column(name, index, int(objects[:, index].sum()), there[:, index]) for name in (*PANOPTIC, *BY_IMAGE)]
        return columns + [self._objects.columns[at] for at in self._kept]

    def subset(self, rows: Sequence[int]) -> InstanceScorer:
        """Give the scorer of some of the images."""
        part = copy.copy(self)
        for name in ("_sums", "_averages", "_whole"):
            setattr(part, name, getattr(self, name)[list(rows)])
        part.images = len(part._sums)
        part._objects = self._objects.subset(rows)
        part.work = part._objects.work
        part.columns = part._name()
        return part

    def score(self, weights: Floats) -> Floats:
        """Give all figures ``(B, len(columns))`` for weights ``(B, N)``."""
        sums = (weights @ self._sums.reshape(self.images, -1)).reshape(len(weights), self.classes, 4)
        overlaps, hits, alarms, misses = (sums[:, :, at] for at in range(4))
        recognition = divide(2 * hits, 2 * hits + alarms + misses)
        figures = {
            "pq": divide(2 * overlaps, 2 * hits + alarms + misses),
            "sq": divide(overlaps, hits),
            "rq": recognition,
            "f1": recognition,
            "precision": divide(hits, hits + alarms),
            "recall": divide(hits, hits + misses),
        }
        averages = image_means(weights, self._averages.reshape(self.images, -1)).reshape(len(weights), self.classes, -1)
        whole = np.stack([mean_defined(values) for values in figures.values()], axis=1)
        table = np.concatenate([np.stack(list(figures.values()), axis=2), averages], axis=2).reshape(len(weights), -1)
        return np.concatenate([whole, image_means(weights, self._whole), table, self._objects.score(weights)[:, self._kept]], axis=1)


def _count(pixels: Overlaps) -> tuple[tuple[float, int, int, int], float]:
    """Give the sum of IoUs, hits, false alarms and misses at IoU .5, and the mean over THRESHOLDS of TP / (TP + FP + FN) (NaN without objects).

    Masks do not overlap, so a pair over .5 is the only one of both (Kirillov et al. 2019); nothing needs to be assigned.
    """
    ious = pixels.ious
    # As both competitions have it, the IoU must be larger than the threshold.
    best = ious.max(axis=1, initial=0.0)
    paired = (ious > 0.5).any(axis=0)
    counted = int((paired | ~pixels.void).sum())
    total = len(best)
    hits = int((best > 0.5).sum())
    precisions = [float("nan")] * len(THRESHOLDS)
    if total + counted:
        right = (best[:, None] > THRESHOLDS[None]).sum(axis=0)
        precisions = [float(one / (total + counted - one)) for one in right]
    return (float(best[best > 0.5].sum()), hits, counted - hits, total - hits), float(np.mean(precisions))


def instance_scores(truths: Sequence[Instances], found: Sequence[Instances], classes: int) -> dict[str, float]:
    """Compute the figures that models are chosen by (`QUICK`), quickly, without intervals; what is not defined is 0."""
    if not len(truths):
        return dict.fromkeys(QUICK, 0.0)
    scorer = InstanceScorer(truths, found, classes, by_size=False)
    values = scorer.score(np.ones((1, scorer.images)))[0]
    return {column.name: float(np.nan_to_num(value)) for column, value in zip(scorer.columns, values, strict=True) if column.index < 0}


def evaluate_instances(
    truths: Sequence[Instances],
    found: Sequence[Instances],
    classes: Sequence[str],
    *,
    groups: Sequence[Any] | None = None,
    split: str = "test",
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> list[MetricValue]:
    """Measure an instance segmentation, in pixels of the originals.

    Parameters
    ----------
    truths, found
        One each for every image, of equal shapes; pixels that are -1 in a truth count nowhere, and a found object that lies mostly in them and
        matches nothing is no false alarm.
    classes
        Names of the classes.
    groups
        Group key of each image (patient, slide); images of one group are drawn together. None: every image alone.
    split
        Name of the part, for the metrics.
    seed
        Seed of the bootstrap.
    resamples, level
        Number of resamples (0: no intervals) and the intervals' level.

    Returns
    -------
    list of MetricValue
        `PANOPTIC`, `BY_IMAGE` and `PRECISIONS` for the whole and each class; ``map50_95`` and ``map50`` by size with COCO's areas
        (``map50_small``). The whole is the mean over the classes; ``aji`` and ``map_dsb2018`` of the whole look at objects whatever their class.

    Notes
    -----
    Panoptic quality: Kirillov et al., CVPR 2019, summed over all images. ``map_dsb2018``: Caicedo et al., Nat. Methods 16, 2019 (the 2018 Data
    Science Bowl's score: a mean over the images). Average precision: Lin et al., ECCV 2014.
    """
    if not len(truths):
        return []
    scorer = InstanceScorer(truths, found, len(classes))
    return measure(
        scorer.score,
        scorer.columns,
        scorer.images,
        classes,
        groups=groups,
        split=split,
        seed=seed,
        resamples=affordable(resamples, scorer.work),
        level=level,
    )
