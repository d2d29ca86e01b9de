"""How good a semantic segmentation is: overlap and outlines, class by class, image by image."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oteo_core.evaluation.bootstrap import LEVEL, RESAMPLES, Floats
from oteo_core.evaluation.resampled import Column, image_means, measure
from oteo_core.evaluation.scores import divide, mean_defined
from oteo_core.evaluation.surfaces import SurfaceDistances
from oteo_core.packages import MetricValue
from oteo_core.packages.answers import IGNORED, ClassMap

OVERLAPS = ("dice", "iou", "dice_pooled", "iou_pooled", "precision", "recall")
"""``dice`` and ``iou``: mean over the images; ``_pooled``, ``precision`` and ``recall``: over the pixels of all images together."""

OUTLINES = ("hausdorff95", "surface_dice", "hausdorff95_mm", "surface_dice_mm")
"""Means over the images that have the class in truth and answer; the first two in pixels, the others where the pixels' size is known."""

UNDEFINED = "hausdorff95_undefined"
"""Number of image and class pairs that have the class in only one of truth and answer, so that no distance is defined."""

TOLERANCE = 2.0
"""Tolerance of the surface Dice, pixels, and mm."""


class SemanticScorer:
    """Computes all figures on any weighting of the images.

    Parameters
    ----------
    truths, found
        One each for every image, of equal shapes; pixels that are `IGNORED` in a truth count nowhere.
    classes
        Number of classes, K, without the background.
    spacings
        Height and width of a pixel in mm for each image, None where unknown.
    tolerance, tolerance_mm
        Of the surface Dice.
    surface
        False: leave out what needs outlines.

    Raises
    ------
    ValueError
        A shape that differs.
    """

    def __init__(
        self,
        truths: Sequence[ClassMap],
        found: Sequence[ClassMap],
        classes: int,
        *,
        spacings: Sequence[tuple[float, float] | None] | None = None,
        tolerance: float = TOLERANCE,
        tolerance_mm: float = TOLERANCE,
        surface: bool = True,
    ) -> None:
        if len(truths) != len(found):
            raise ValueError(f"{len(found)} answers for {len(truths)} images")
        self.images, self.classes, self.surface = len(truths), classes, surface
        self.work = self.images
        self._hits = np.zeros((self.images, classes))
        self._true, self._called = np.zeros_like(self._hits), np.zeros_like(self._hits)
        self._outlines = np.full((self.images, classes, len(OUTLINES)), np.nan)
        for index, (truth, answer) in enumerate(zip(truths, found, strict=True)):
            spacing = spacings[index] if spacings is not None else None
            self._look(index, truth.labels, answer.labels, spacing, (tolerance, tolerance_mm))
        both = self._true + self._called
        self._dice: Floats = divide(2 * self._hits, both)
        self._iou: Floats = divide(self._hits, both - self._hits)
        self._lonely = ((self._true > 0) != (self._called > 0)).astype(np.float64)
        self.columns = self._name()

    def _look(
        self,
        index: int,
        truth: NDArray[np.uint8],
        answer: NDArray[np.uint8],
        spacing: tuple[float, float] | None,
        tolerances: tuple[float, float],
    ) -> None:
        if truth.shape != answer.shape:
            raise ValueError(f"image {index}: an answer of shape {answer.shape} for a truth of shape {truth.shape}")
        known = truth != IGNORED
        size = self.classes + 1
        pairs = truth[known].astype(np.int64) * size + np.minimum(answer[known], self.classes)
        if len(pairs) and int(truth[known].max()) > self.classes:
            raise ValueError(f"image {index}: a class number over {self.classes}")
        table = np.bincount(pairs, minlength=size * size).reshape(size, size)[:, :]
        self._hits[index] = np.diagonal(table)[1:]
        self._true[index], self._called[index] = table.sum(axis=1)[1:], table.sum(axis=0)[1:]
        if not self.surface:
            return
        for class_index in np.flatnonzero((self._true[index] > 0) & (self._called[index] > 0)):
            true, called = (truth == class_index + 1) & known, (answer == class_index + 1) & known
            distances = SurfaceDistances(true, called)
            self._outlines[index, class_index, :2] = distances.hausdorff(), distances.dice(tolerances[0])
            if spacing is not None:
                distances = SurfaceDistances(true, called, spacing)
                self._outlines[index, class_index, 2:] = distances.hausdorff(), distances.dice(tolerances[1])

    def _name(self) -> list[Column]:
        names = (*OVERLAPS, *OUTLINES) if self.surface else OVERLAPS
        columns = [Column(name, -1, self.images) for name in names]
        if self.surface:
            columns.append(Column(UNDEFINED, -1, self.images, fixed=True))
        for index in range(self.classes):
            there = int((self._true[:, index] > 0).sum())
            columns += [Column(name, index, there) for name in names]
            if self.surface:
                columns.append(Column(UNDEFINED, index, there, fixed=True))
        return columns

    def subset(self, rows: Sequence[int]) -> SemanticScorer:
        """Give the scorer of some of the images."""
        part = copy.copy(self)
        for name in ("_hits", "_true", "_called", "_outlines", "_dice", "_iou", "_lonely"):
            setattr(part, name, getattr(self, name)[list(rows)])
        part.images = len(part._hits)
        part.columns = part._name()
        return part

    def score(self, weights: Floats) -> Floats:
        """Give all figures ``(B, len(columns))`` for weights ``(B, N)``."""
        hits, true, called = weights @ self._hits, weights @ self._true, weights @ self._called
        figures = {
            "dice": image_means(weights, self._dice),
            "iou": image_means(weights, self._iou),
            "dice_pooled": divide(2 * hits, true + called),
            "iou_pooled": divide(hits, true + called - hits),
            "precision": divide(hits, called),
            "recall": divide(hits, true),
        }
        if self.surface:
            outlines = image_means(weights, self._outlines.reshape(self.images, -1)).reshape(len(weights), self.classes, -1)
            figures |= {name: outlines[:, :, at] for at, name in enumerate(OUTLINES)}
        whole = [mean_defined(values) for values in figures.values()]
        table = list(figures.values())
        if self.surface:
            undefined = weights @ self._lonely
            seen = (true + called) > 0
            whole.append(np.where(seen.any(axis=1), undefined.sum(axis=1), np.nan))
            table.append(np.where(seen, undefined, np.nan))
        return np.concatenate([np.stack(whole, axis=1), np.stack(table, axis=2).reshape(len(weights), -1)], axis=1)


def semantic_scores(truths: Sequence[ClassMap], found: Sequence[ClassMap], classes: int, *, surface: bool = False) -> dict[str, float]:
    """Compute the figures that models are chosen by, quickly, without intervals.

    Parameters
    ----------
    truths, found
        One each for every image, of equal shapes.
    classes
        Number of classes without the background.
    surface
        Whether to compute ``hausdorff95`` and ``surface_dice`` too.

    Returns
    -------
    dict
        Means over the foreground classes; what is not defined is 0 (for ``hausdorff95``: left out).
    """
    scorer = SemanticScorer(truths, found, classes, surface=surface)
    if not scorer.images:
        return dict.fromkeys(OVERLAPS, 0.0)
    values = scorer.score(np.ones((1, scorer.images)))[0]
    named = {column.name: float(value) for column, value in zip(scorer.columns, values, strict=True) if column.index < 0}
    named = {name: value for name, value in named.items() if np.isfinite(value) or name in OVERLAPS or name == "surface_dice"}
    return {name: float(np.nan_to_num(value)) for name, value in named.items()}


def evaluate_semantic(
    truths: Sequence[ClassMap],
    found: Sequence[ClassMap],
    classes: Sequence[str],
    *,
    groups: Sequence[Any] | None = None,
    split: str = "test",
    seed: int = 0,
    spacings: Sequence[tuple[float, float] | None] | None = None,
    tolerance: float = TOLERANCE,
    tolerance_mm: float = TOLERANCE,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> list[MetricValue]:
    """Measure a semantic segmentation, in pixels of the originals.

    Parameters
    ----------
    truths, found
        One each for every image, of equal shapes; pixels that are `IGNORED` in a truth count nowhere.
    classes
        Names of the classes without the background.
    groups
        Group key of each image (patient, slide); images of one group are drawn together. None: every image alone.
    split
        Name of the part, for the metrics.
    seed
        Seed of the bootstrap.
    spacings
        Height and width of a pixel in mm for each image, None where unknown.
    tolerance, tolerance_mm
        Of the surface Dice, in pixels and in mm.
    resamples, level
        Number of resamples (0: no intervals) and the intervals' level.

    Returns
    -------
    list of MetricValue
        `OVERLAPS`, `OUTLINES` and `UNDEFINED` for the whole (mean over the classes) and each class.

    Notes
    -----
    An image that has a class in truth or answer alone counts with Dice and IoU 0; one that has it in neither is left out of the class's mean
    (as nnU-Net does: Isensee et al., Nat. Methods 18, 2021; Maier-Hein et al., "Metrics reloaded", Nat. Methods 21, 2024). Hausdorff distance
    (its 95th percentile, the larger of both sides) and surface Dice (Nikolov et al. 2018) are means over the images that have the class in
    both; `UNDEFINED` counts those that have it in one.
    """
    scorer = SemanticScorer(truths, found, len(classes), spacings=spacings, tolerance=tolerance, tolerance_mm=tolerance_mm)
    return measure(
        scorer.score, scorer.columns, scorer.images, classes, groups=groups, split=split, seed=seed, resamples=resamples, level=level
    )
