"""From truths and answers to the part of a report: curves, calibration, and the test images to show.

Called once, after the test part was answered. Pixels are asked for only of the images that are shown.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oteo_automl.report import words
from oteo_automl.report.data import (
    DetectionPart,
    ImageFigures,
    InstancePart,
    LabelCase,
    MultiLabelPart,
    Part,
    PictureCase,
    PrecisionRecall,
    ScoreCalibration,
    SemanticPart,
    ThresholdRow,
)
from oteo_automl.report.pairs import BoxPairs, found_words
from oteo_core.datasets import Task
from oteo_core.evaluation.bootstrap import Floats, Ints, encode_groups
from oteo_core.evaluation.detection import match_boxes
from oteo_core.evaluation.instances import match_class, overlap
from oteo_core.evaluation.matching import SIZES, ClassMatches, ImageMatches
from oteo_core.evaluation.statistics import ScoreTable, Significance, judge
from oteo_core.packages.answers import IGNORED, ClassMap, Detections, Instances, TrueBoxes
from oteo_core.reporting import overlays
from oteo_core.reporting.pictures import thumbnail

Pixels = Callable[[int], NDArray[Any]]

WORST, UNSURE = 9, 6
"""So many test images are shown at most."""

_BINS = 10
_LEAST_SCORE = 0.05
_OVERLAP = 0.5
_CURVE_POINTS = 400
_CAPTIONS = 6


def compare_candidates(table: ScoreTable, task: str, baseline: str = "") -> Significance:
    """Test whether the candidates differ (`oteo_core.evaluation.statistics.judge`), with the metric's name for people."""
    return judge(table, baseline=baseline, words=words.column(table.metric, task))


def gather_dense(
    task: str,
    truths: Sequence[Any],
    found: Sequence[Any],
    classes: Sequence[str],
    *,
    ids: Sequence[str],
    sources: Sequence[str],
    groups: Sequence[str] | None,
    pixels: Pixels,
    threshold: float | Sequence[float] = 0.0,
    calibration: ScoreCalibration | None = None,
    certainty: Floats | None = None,
) -> Part:
    """Make the part of a dense task's report.

    Parameters
    ----------
    task
        A value of `oteo_core.datasets.Task`.
    truths, found
        One each for every test image, in original pixels: the forms of `oteo_core.packages.answers`. Detections hold boxes below the threshold too.
    classes
        K names.
    ids, sources, groups
        Of the test images; of each group one image is shown, since images that are alike would crowd out others.
    pixels
        Gives the original pixels ``(H, W, C)`` of an image by its place.
    threshold
        Detection: the package's score threshold, one for all classes or for each.
    calibration
        Semantic: of the pixels' probabilities, from `PixelCalibration`.
    certainty
        Semantic: ``(N,)`` how sure the model is of each image, such as the mean probability of what it says, from `PixelCalibration`.

    Raises
    ------
    ValueError
        Not a dense task.
    """
    show = Showing(list(ids), list(sources), encode_groups(groups, len(ids)), pixels)
    if task == Task.DETECTION:
        return detection_part(truths, found, classes, show, np.broadcast_to(np.asarray(threshold, dtype=np.float64), (len(classes),)))
    if task == Task.SEMANTIC:
        return semantic_part(truths, found, classes, show, calibration, certainty)
    if task == Task.INSTANCE:
        return instance_part(truths, found, classes, show)
    raise ValueError(f"{task} is not a dense task")


class Showing:
    """Chooses images, one of each group, and makes cases of them."""

    def __init__(self, ids: list[str], sources: list[str], groups: Ints, pixels: Pixels) -> None:
        self.ids, self.sources, self.groups, self.pixels = ids, sources, groups, pixels

    def choose(self, first: Sequence[int], second: Sequence[int]) -> tuple[list[int], list[int]]:
        """Take the first `WORST` and `UNSURE` of two orders without showing a group twice."""
        shown: set[int] = set()

        def take(order: Sequence[int], limit: int) -> list[int]:
            chosen: list[int] = []
            for index in order:
                if len(chosen) < limit and int(self.groups[index]) not in shown:
                    shown.add(int(self.groups[index]))
                    chosen.append(int(index))
            return chosen

        return take(first, WORST), take(second, UNSURE)

    def case(self, index: int, draw: Callable[[NDArray[Any]], str], figure: float, remark: str) -> PictureCase:
        """Make the case of an image; `draw` draws truth and answer over its pixels."""
        image = self.pixels(index)
        return PictureCase(
            self.ids[index], self.sources[index], thumbnail(image), draw(image), float(figure) if np.isfinite(figure) else None, remark
        )


def detection_part(
    truths: Sequence[TrueBoxes], found: Sequence[Detections], classes: Sequence[str], show: Showing, thresholds: Floats
) -> DetectionPart:
    """Make a detector's part, with a score threshold for each class, ``(K,)``; see `gather_dense`."""
    matches = [ClassMatches(one) for one in match_boxes(truths, found, len(classes), by_size=False)]
    figures = np.full(len(truths), np.nan)
    doubt = np.zeros(len(truths))
    confusion = np.zeros((len(classes) + 1, len(classes) + 1), dtype=np.int64)
    pairs = []
    for index, (truth, answer) in enumerate(zip(truths, found, strict=True)):
        kept = _above(answer, thresholds)
        pair = BoxPairs(truth, kept)
        pairs.append((kept, pair))
        figures[index] = pair.f1
        pair.count(confusion)
        own = thresholds[answer.labels]
        doubt[index] = int(((answer.scores > own * 0.5) & (answer.scores < (1 + own) / 2)).sum())
    mistakes = np.array([pair.mistakes for _, pair in pairs])
    wrong = np.flatnonzero(mistakes > 0)
    worst, unsure = show.choose(
        wrong[np.lexsort((-mistakes[wrong], figures[wrong]))].tolist(), np.flatnonzero(doubt)[np.argsort(-doubt[doubt > 0])].tolist()
    )

    def case(index: int) -> PictureCase:
        kept, pair = pairs[index]
        truth = truths[index]
        captions = [f"{classes[int(label)][:12]} {score:.2f}" for label, score in zip(kept.labels, kept.scores, strict=True)]
        shown = captions if len(captions) <= _CAPTIONS else ()

        def draw(image: NDArray[Any]) -> str:
            seen = ~pair.crowd
            return overlays.detections_picture(
                image, truth.boxes[seen], pair.true_found[seen].tolist(), kept.boxes, (pair.found_right | pair.beside).tolist(), shown
            )

        return show.case(index, draw, figures[index], pair.words)

    return DetectionPart(
        object_counts=[int(one.positives.sum()) for one in matches],
        precision_recall=_curves(matches, classes, thresholds),
        thresholds=_threshold_rows(matches, len(truths), thresholds),
        images=ImageFigures("f1", figures),
        calibration=_calibrate_objects(matches, "boxes"),
        confusion=confusion,
        worst=[case(index) for index in worst],
        unsure=[case(index) for index in unsure],
    )


def semantic_part(
    truths: Sequence[ClassMap],
    found: Sequence[ClassMap],
    classes: Sequence[str],
    show: Showing,
    calibration: ScoreCalibration | None = None,
    certainty: Floats | None = None,
) -> SemanticPart:
    """Make a semantic segmenter's part; see `gather_dense`."""
    size = len(classes) + 1
    confusion = np.zeros((size, size), dtype=np.int64)
    figures = np.full(len(truths), np.nan)
    for index, (truth, answer) in enumerate(zip(truths, found, strict=True)):
        known = truth.labels != IGNORED
        pairs = truth.labels[known].astype(np.int64) * size + np.minimum(answer.labels[known], size - 1)
        table = np.bincount(pairs, minlength=size * size).reshape(size, size)
        confusion += table
        both = table.sum(axis=0)[1:] + table.sum(axis=1)[1:]
        if (both > 0).any():
            figures[index] = float((2 * np.diagonal(table)[1:][both > 0] / both[both > 0]).mean())
    order = np.argsort(np.where(np.isfinite(figures), figures, np.inf), kind="stable")
    order = order[np.isfinite(figures[order])]
    doubtful = np.argsort(certainty, kind="stable").tolist() if certainty is not None else []
    worst, unsure = show.choose(order.tolist(), doubtful)

    def case(index: int) -> PictureCase:
        truth, answer = truths[index].labels, found[index].labels
        alone = len(classes) == 1

        def draw(image: NDArray[Any]) -> str:
            return overlays.difference_picture(image, answer, truth) if alone else overlays.class_map_picture(image, answer, truth)

        missing = [classes[k] for k in range(size - 1) if (truth == k + 1).any() and not ((answer == k + 1) & (truth == k + 1)).any()]
        remark = f"misses {', '.join(missing)} altogether" if missing else ""
        return show.case(index, draw, figures[index], remark)

    return SemanticPart(
        confusion, ImageFigures("dice", figures), calibration, [case(index) for index in worst], [case(index) for index in unsure]
    )


def instance_part(truths: Sequence[Instances], found: Sequence[Instances], classes: Sequence[str], show: Showing) -> InstancePart:
    """Make an instance segmenter's part; see `gather_dense`."""
    matches: list[list[ImageMatches]] = [[] for _ in classes]
    figures, sureness = np.full(len(truths), np.nan), np.full(len(truths), np.inf)
    flags: list[tuple[list[bool], list[bool]]] = []
    said: list[str] = []
    for index, (truth, answer) in enumerate(zip(truths, found, strict=True)):
        pixels = overlap(truth, answer)
        ious = np.where(truth.labels[:, None] == answer.labels[None], pixels.ious, 0.0)
        seen = pixels.true_areas > 0
        true_found, right = (ious > _OVERLAP).any(axis=1), (ious > _OVERLAP).any(axis=0)
        void = pixels.void & ~right
        hits, alarms, misses = int(true_found.sum()), int((~right & ~void).sum()), int((~true_found & seen).sum())
        flags.append(((right | void).tolist(), (true_found | ~seen).tolist()))
        said.append(found_words(hits, hits + misses, alarms))
        if hits + alarms + misses:
            figures[index] = 2 * float(ious[ious > _OVERLAP].sum()) / (2 * hits + alarms + misses)
        if len(answer.scores):
            sureness[index] = float(answer.scores.mean())
        for k in range(len(classes)):
            matches[k].append(match_class(truth, answer, pixels, k, SIZES[:1])[1])
    by_class = [ClassMatches(one) for one in matches]
    order = np.flatnonzero(figures < 1.0)
    worst, unsure = show.choose(
        order[np.argsort(figures[order], kind="stable")].tolist(),
        [index for index in np.argsort(sureness, kind="stable").tolist() if np.isfinite(sureness[index])],
    )

    def case(index: int) -> PictureCase:
        right, seen = flags[index]

        def draw(image: NDArray[Any]) -> str:
            return overlays.instances_picture(image, found[index].ids, right, truths[index].ids, seen)

        return show.case(index, draw, figures[index], said[index])

    return InstancePart(
        object_counts=[int(one.positives.sum()) for one in by_class],
        true_counts=np.array([len(truth.labels) for truth in truths], dtype=np.int64),
        found_counts=np.array([len(answer.labels) for answer in found], dtype=np.int64),
        precision_recall=_curves(by_class, classes),
        images=ImageFigures("pq", figures),
        calibration=_calibrate_objects(by_class, "objects"),
        worst=[case(index) for index in worst],
        unsure=[case(index) for index in unsure],
    )


def gather_labels(
    labels: NDArray[np.bool_],
    probabilities: Floats,
    before: Floats,
    thresholds: Floats,
    classes: Sequence[str],
    *,
    ids: Sequence[str],
    sources: Sequence[str],
    groups: Sequence[str] | None,
    pixels: Pixels,
    attention: Callable[[int], str] | None = None,
) -> MultiLabelPart:
    """Make the part of a multi-label classifier's report.

    Parameters
    ----------
    labels
        Test part, ``(N, K)`` bool.
    probabilities, before
        Calibrated and uncalibrated, ``(N, K)``.
    thresholds
        ``(K,)``.
    classes
        K names.
    ids, sources, groups, pixels
        As in `gather_dense`.
    attention
        Gives the data URI of an image with its attention map, by place; None: there is none.
    """
    show = Showing(list(ids), list(sources), encode_groups(groups, len(ids)), pixels)
    said = probabilities >= thresholds
    wrong = said != labels
    # How surely it is wrong: how far the probability of a wrongly answered label is from its threshold, in the wrong direction.
    distance = np.abs(probabilities - thresholds)
    sureness = np.where(wrong, distance, 0.0).max(axis=1, initial=0.0)
    mistaken = np.flatnonzero(wrong.any(axis=1))
    worst, unsure = show.choose(
        mistaken[np.argsort(-sureness[mistaken], kind="stable")].tolist(),
        np.argsort(distance.min(axis=1, initial=1.0), kind="stable").tolist(),
    )

    def case(index: int) -> LabelCase:
        def listed(mask: NDArray[np.bool_]) -> tuple[tuple[str, float], ...]:
            return tuple((classes[int(k)], float(probabilities[index, k])) for k in np.flatnonzero(mask))

        true, named = labels[index], said[index]
        return LabelCase(
            show.ids[index],
            show.sources[index],
            thumbnail(pixels(index)),
            found=listed(true & named),
            missed=listed(true & ~named),
            invented=listed(~true & named),
            attention=attention(index) if attention is not None else "",
        )

    return MultiLabelPart(
        labels, probabilities, before, thresholds, worst=[case(index) for index in worst], unsure=[case(index) for index in unsure]
    )


class PixelCalibration:
    """Counts how sure and how often right pixels are, image by image, so that no probabilities need to be kept.

    Pixels that truth and answer both call background count too little to matter for a reader and would hide the rest: they are left out.
    """

    def __init__(self) -> None:
        self._sums = np.zeros((3, _BINS))
        self.certainty: list[float] = []

    def add(self, probabilities: NDArray[Any], truth: NDArray[np.uint8]) -> None:
        """Take an image: probabilities ``(K + 1, H, W)``, background first, and the true classes ``(H, W)``."""
        confidence = probabilities.max(axis=0)
        answer = probabilities.argmax(axis=0)
        looked_at = (truth != IGNORED) & ((answer > 0) | (truth > 0))
        self.certainty.append(float(confidence[looked_at].mean()) if looked_at.any() else 1.0)
        values = confidence[looked_at].astype(np.float64)
        places = np.clip((values * _BINS).astype(np.int64), 0, _BINS - 1)
        right = (answer[looked_at] == truth[looked_at]).astype(np.float64)
        for row, weights in enumerate((np.ones_like(values), values, right)):
            self._sums[row] += np.bincount(places, weights=weights, minlength=_BINS)

    def result(self) -> ScoreCalibration | None:
        """Give the bins that hold pixels; None where there is no pixel."""
        counts, confidence, right = self._sums
        held = counts > 0
        if not held.any():
            return None
        counts, confidence, accuracy = counts[held], confidence[held] / counts[held], right[held] / counts[held]
        return ScoreCalibration(
            confidence, accuracy, counts, float((np.abs(confidence - accuracy) * counts).sum() / counts.sum()), "pixels"
        )


def _above(answer: Detections, thresholds: Floats) -> Detections:
    kept = np.flatnonzero(answer.scores >= thresholds[answer.labels])
    kept = kept[np.argsort(-answer.scores[kept], kind="stable")]
    return Detections(answer.boxes[kept], answer.scores[kept], answer.labels[kept])


def _curves(matches: Sequence[ClassMatches], classes: Sequence[str], chosen: Floats | None = None) -> list[PrecisionRecall]:
    found = []
    for place, (name, one) in enumerate(zip(classes, matches, strict=True)):
        total = float(one.positives.sum())
        if not total:
            continue
        counted = ~one.ignored[0]
        hits, thresholds = np.cumsum(one.hits[0][counted]), one.scores[counted]
        # Equal scores are called together: only the last of them is a point of the curve.
        last = np.flatnonzero(np.append(np.diff(thresholds) != 0, True)) if len(thresholds) else np.zeros(0, dtype=np.int64)
        last = last[np.unique(np.linspace(0, len(last) - 1, min(len(last), _CURVE_POINTS)).astype(int))] if len(last) else last
        area = float(np.nan_to_num(one.average_precision(np.ones((1, len(one.positives))))[0, 0]))
        recall, precision = hits[last] / total, hits[last] / (last + 1.0)
        own = None if chosen is None else float(chosen[place])
        found.append(PrecisionRecall(name, recall, precision, thresholds[last], area, int(total), _OVERLAP, own))
    return found


def _threshold_rows(matches: Sequence[ClassMatches], images: int, thresholds: Floats) -> list[ThresholdRow]:
    """Say what thresholds give; the package's own, each class at its own, stand at their mean."""
    total = float(sum(one.positives.sum() for one in matches))
    chosen = float(thresholds.mean())
    wanted = sorted({round(float(value), 3) for value in np.linspace(0.05, 0.95, 19)} - {round(chosen, 3)} | {chosen}, reverse=True)
    ones = np.ones((1, images))
    rows = []
    for value in wanted:
        cuts = thresholds if value == chosen else np.full(len(thresholds), value)
        counts = [one.counts(ones, float(cut)) for one, cut in zip(matches, cuts, strict=True)]
        hits, alarms = (sum(float(count[at][0]) for count in counts) for at in (0, 1))
        recall = hits / total if total else 0.0
        precision = hits / (hits + alarms) if hits + alarms else 0.0
        f1 = 2 * hits / (hits + alarms + total) if hits + alarms + total else 0.0
        rows.append(ThresholdRow(value, recall, precision, f1, alarms / max(images, 1), chosen=value == chosen))
    return rows


def _calibrate_objects(matches: Sequence[ClassMatches], what: str) -> ScoreCalibration | None:
    scores = np.concatenate([np.zeros(0), *(one.scores[~one.ignored[0]] for one in matches)])
    right = np.concatenate([np.zeros(0), *(one.hits[0][~one.ignored[0]] for one in matches)])
    # Detectors give many boxes that nobody would believe; they would fill all bins.
    believed = scores >= _LEAST_SCORE
    scores, right = scores[believed], right[believed]
    if not len(scores):
        return None
    order = np.argsort(scores, kind="stable")
    pieces = np.array_split(order, min(_BINS, len(order)))
    confidence = np.array([scores[piece].mean() for piece in pieces])
    accuracy = np.array([right[piece].mean() for piece in pieces])
    counts = np.array([len(piece) for piece in pieces], dtype=np.float64)
    return ScoreCalibration(confidence, accuracy, counts, float((np.abs(confidence - accuracy) * counts).sum() / counts.sum()), what)
