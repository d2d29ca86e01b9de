"""How good a detector is: COCO's mean average precision, by class and size, and precision, recall and F1 at a threshold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from oteo_core.evaluation.bootstrap import LEVEL, RESAMPLES, Floats
from oteo_core.evaluation.matching import SIZES, THRESHOLDS, ClassMatches, ImageMatches, best_threshold, match
from oteo_core.evaluation.resampled import Column, affordable, measure
from oteo_core.evaluation.scores import divide, mean_defined
from oteo_core.packages import MetricValue
from oteo_core.packages.answers import Detections, TrueBoxes

AVERAGES = ("map50_95", "map50", "map75")
"""Average precision over IoU .5 to .95, at .5 and at .75."""

AT_THRESHOLD = ("f1", "precision", "recall", "iou")
"""At IoU .5 and a score threshold; ``iou`` is the mean overlap of the objects that were found."""

_WITH_SIZE = ("map50_95", "map50", "f1", "iou")
_LEAST_LIMIT = 100


def match_boxes(
    truths: Sequence[TrueBoxes], found: Sequence[Detections], classes: int, *, by_size: bool = True, thresholds: Floats = THRESHOLDS
) -> list[list[ImageMatches]]:
    """Match boxes, class by class: ``[class][image]``.

    The 100 best answers of a class in an image count, as in COCO; more where an image has more true objects of a class.
    """
    if len(truths) != len(found):
        raise ValueError(f"{len(found)} answers for {len(truths)} images")
    most = max((int(np.bincount(one.labels, minlength=1).max()) for one in truths if len(one.labels)), default=0)
    limit = max(_LEAST_LIMIT, most)
    sizes = SIZES if by_size else SIZES[:1]
    return [
        [_match_image(true, answer, index, limit, sizes, thresholds) for true, answer in zip(truths, found, strict=True)]
        for index in range(classes)
    ]


def _match_image(
    true: TrueBoxes, answer: Detections, index: int, limit: int, sizes: Sequence[tuple[str, float, float]], thresholds: Floats
) -> ImageMatches:
    mine = np.flatnonzero(answer.labels == index)
    mine = mine[np.argsort(-answer.scores[mine].astype(np.float64), kind="stable")[:limit]]
    there = np.flatnonzero(true.labels == index)
    boxes, targets = _to_coco(answer.boxes[mine]), _to_coco(true.boxes[there])
    crowd = true.crowd[there] if len(true.crowd) else np.zeros(len(there), dtype=np.bool_)
    overlaps = np.zeros((len(mine), len(there)))
    if overlaps.size:
        overlaps = np.asarray(coco_mask.iou(boxes, targets, crowd.astype(np.uint8).tolist()), dtype=np.float64)
    return match(
        overlaps,
        answer.scores[mine].astype(np.float64),
        boxes[:, 2] * boxes[:, 3],
        targets[:, 2] * targets[:, 3],
        crowd,
        sizes=sizes,
        thresholds=thresholds,
    )


def _to_coco(boxes: Any) -> Floats:
    corners = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    return np.ascontiguousarray(np.concatenate([corners[:, :2], np.maximum(corners[:, 2:] - corners[:, :2], 0.0)], axis=1))


class ObjectScorer:
    """Computes COCO's figures of matched objects on any weighting of the images; boxes and masks alike.

    Parameters
    ----------
    matches
        ``[class][image]``, with all of `SIZES` or the first alone.
    threshold
        Score from which an object counts as found, one for all classes or for each; None: where each class's F1 is largest on these very
        images, which flatters a little.
    """

    def __init__(self, matches: Sequence[Sequence[ImageMatches]], threshold: float | Sequence[float] | None = None) -> None:
        self._matches = matches
        ranges = len(matches[0][0].positives) if matches and matches[0] else 1
        self.images = len(matches[0]) if matches else 0
        self.by_class = [[ClassMatches(one, size) for size in range(ranges)] for one in matches]
        chosen = [best_threshold(one[0]) for one in self.by_class] if threshold is None else threshold
        self.thresholds: list[float] = np.broadcast_to(np.asarray(chosen, dtype=np.float64), (len(matches),)).tolist()
        self.columns: list[Column] = []
        everything = [one[0] for one in self.by_class]
        self.work = sum(len(one.scores) for one in everything)
        for name in (*AVERAGES, *AT_THRESHOLD):
            self.columns.append(Column(name, -1, self.images, self._basis(everything)))
        for size in range(1, ranges):
            ranged = [one[size] for one in self.by_class]
            objects = int(sum(one.positives.sum() for one in ranged))
            self.columns += [Column(f"{name}_{SIZES[size][0]}", -1, objects, self._basis(ranged)) for name in _WITH_SIZE]
        for index, one in enumerate(self.by_class):
            count = int(one[0].positives.sum())
            self.columns += [Column(name, index, count, self._basis([one[0]])) for name in (*AVERAGES, *AT_THRESHOLD)]
            self.columns.append(Column("score_threshold", index, count, fixed=True))
            for size in range(1, ranges):
                objects = int(one[size].positives.sum())
                self.columns += [Column(f"{name}_{SIZES[size][0]}", index, objects, self._basis([one[size]])) for name in _WITH_SIZE]

    def score(self, weights: Floats) -> Floats:
        """Give all figures ``(B, len(columns))`` for weights ``(B, N)``."""
        rows = len(weights)
        pairs = zip(self.by_class, self.thresholds, strict=True)
        tables = [[self._figures(one, threshold, weights) for one in sizes] for sizes, threshold in pairs]
        blank = {name: np.full(rows, np.nan) for name in (*AVERAGES, *AT_THRESHOLD)}
        ranges = len(self.by_class[0]) if self.by_class else 1

        def mean(size: int, name: str) -> Floats:
            return mean_defined(np.stack([table[size][name] for table in tables], axis=1)) if tables else blank[name]

        out = [mean(0, name) for name in (*AVERAGES, *AT_THRESHOLD)]
        out += [mean(size, name) for size in range(1, ranges) for name in _WITH_SIZE]
        for table, threshold in zip(tables, self.thresholds, strict=True):
            out += [table[0][name] for name in (*AVERAGES, *AT_THRESHOLD)]
            # A class that neither is there nor was found has no figures, and no threshold.
            out.append(np.where(np.isfinite(table[0]["f1"]), threshold, np.nan))
            out += [table[size][name] for size in range(1, ranges) for name in _WITH_SIZE]
        return np.stack(out, axis=1)

    def subset(self, rows: Sequence[int]) -> ObjectScorer:
        """Give the scorer of some of the images, at the same threshold."""
        return ObjectScorer([[one[row] for row in rows] for one in self._matches], self.thresholds)

    def _figures(self, one: ClassMatches, threshold: float, weights: Floats) -> dict[str, Floats]:
        precision = one.average_precision(weights)
        hits, alarms, misses, iou = one.counts(weights, threshold)
        figures = {
            "map50_95": precision.mean(axis=1),
            "map50": precision[:, 0],
            "f1": divide(2 * hits, 2 * hits + alarms + misses),
            "precision": divide(hits, hits + alarms),
            "recall": divide(hits, hits + misses),
            "iou": iou,
        }
        figures["map75"] = precision[:, 5] if precision.shape[1] > 5 else np.full(len(weights), np.nan)
        return figures

    def _basis(self, matches: Sequence[ClassMatches]) -> Any:
        with_objects = np.zeros(self.images, dtype=np.bool_)
        for one in matches:
            with_objects |= one.positives > 0
            with_objects[one.images] = True
        return with_objects


def detection_scores(truths: Sequence[TrueBoxes], found: Sequence[Detections], classes: int) -> dict[str, float]:
    """Compute the figures that models are chosen by, quickly, without intervals.

    Parameters
    ----------
    truths, found
        One each for every image, in pixels of the same geometry.
    classes
        Number of classes.

    Returns
    -------
    dict
        `AVERAGES` and `AT_THRESHOLD` (where each class's F1 is best), means over the classes that have true objects, 0 to 1. 0 where a figure
        is not defined (no true object at all).
    """
    scorer = ObjectScorer(match_boxes(truths, found, classes, by_size=False))
    if not scorer.images:
        return dict.fromkeys((*AVERAGES, *AT_THRESHOLD), 0.0)
    values = scorer.score(np.ones((1, scorer.images)))[0]
    return {column.name: float(np.nan_to_num(value)) for column, value in zip(scorer.columns, values, strict=True) if column.index < 0}


def evaluate_detection(
    truths: Sequence[TrueBoxes],
    found: Sequence[Detections],
    classes: Sequence[str],
    *,
    groups: Sequence[Any] | None = None,
    split: str = "test",
    seed: int = 0,
    threshold: float | Sequence[float] | None = None,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> list[MetricValue]:
    """Measure a detector, in pixels of the originals.

    Parameters
    ----------
    truths, found
        One each for every image.
    classes
        Names of the classes.
    groups
        Group key of each image (patient, slide); images of one group are drawn together. None: every image alone.
    split
        Name of the part, for the metrics.
    seed
        Seed of the bootstrap.
    threshold
        Score from which an object counts as found, one for all classes or for each, for F1, precision, recall and IoU: the package's. None:
        where each class's F1 is best on these images.
    resamples, level
        Number of resamples (0: no intervals) and the intervals' level.

    Returns
    -------
    list of MetricValue
        `AVERAGES` and `AT_THRESHOLD` for the whole (mean over the classes) and each class; ``map50_95``, ``map50``, ``f1`` and ``iou`` by size of
        the true object with COCO's areas (``map50_small``: below 32 x 32 pixels, ``_medium``: below 96 x 96, ``_large``), for the whole and each
        class; ``score_threshold`` of each class. Undefined figures are left out: average precision of a class without true object, F1 of a class
        that neither is there nor was found.

    Notes
    -----
    Lin et al., "Microsoft COCO: common objects in context", ECCV 2014. Intervals: images are matched once, whole groups are drawn, and each
    resample sums the kept matches with the number of times that its image was drawn; the score threshold stays the same in all resamples. There are fewer resamples
    than asked for where very many objects were found (`oteo_core.evaluation.resampled.affordable`).
    """
    scorer = ObjectScorer(match_boxes(truths, found, len(classes)), threshold)
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
