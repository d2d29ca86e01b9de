"""Which found objects are which true ones, COCO's way, and average precision from that on any weighting of the images.

The rules are those of ``pycocotools.cocoeval`` (Lin et al., "Microsoft COCO", ECCV 2014): within a class, found objects are taken by falling
score, each goes to the true object with the largest IoU that is free and reaches the threshold; true objects of another size and crowds are
ignored, as is whatever matches them; found objects of another size that match nothing are ignored. COCOeval itself visits every pair in
Python for every threshold and size, minutes for a resampled interval; here one pass serves all thresholds and sizes, and its outcome is
kept, so that a bootstrap resample is sums over kept matches. Tests hold both equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from oteo_core.evaluation.bootstrap import Floats, Ints

Flags = NDArray[np.bool_]

THRESHOLDS: Floats = np.linspace(0.5, 0.95, 10)
"""IoUs that are averaged over."""

SIZES: tuple[tuple[str, float, float], ...] = (
    ("", 0.0, 1e10),
    ("small", 0.0, 32.0**2),
    ("medium", 32.0**2, 96.0**2),
    ("large", 96.0**2, 1e10),
)
"""COCO's ranges of areas, pixels of the original; the first is all."""

_RECALLS: Floats = np.linspace(0.0, 1.0, 101)
_CHUNK = 3_000_000


@dataclass(frozen=True, slots=True)
class ImageMatches:
    """One image and class; A size ranges, T thresholds, D found objects by falling score.

    Parameters
    ----------
    scores
        ``(D,)``.
    ious
        ``(D,)`` IoU with the true object that it was matched with at the lowest threshold, all sizes; 0 without one.
    hits, ignored
        ``(A, T, D)``: matched with an object that counts; counts neither way.
    positives
        ``(A,)`` true objects that count.
    """

    scores: Floats
    ious: Floats
    hits: Flags
    ignored: Flags
    positives: Ints


def match(
    overlaps: Floats,
    scores: Floats,
    found_areas: Floats,
    true_areas: Floats,
    crowd: Flags,
    *,
    sizes: Sequence[tuple[str, float, float]] = SIZES,
    thresholds: Floats = THRESHOLDS,
    void: Flags | None = None,
) -> ImageMatches:
    """Match the found with the true objects of one class in one image.

    Parameters
    ----------
    overlaps
        IoU ``(D, G)`` of D found and G true objects; with a crowd, the share of the found object inside it.
    scores
        ``(D,)``, falling.
    found_areas, true_areas
        ``(D,)`` and ``(G,)``, pixels.
    crowd
        ``(G,)``.
    sizes
        Ranges of areas, both ends within.
    thresholds
        ``(T,)``, rising.
    void
        ``(D,)``: found objects that lie in what is left out of measuring: ignored where nothing matches them.
    """
    count, true_count = overlaps.shape
    lows = np.array([low for _, low, _ in sizes])[:, None]
    highs = np.array([high for _, _, high in sizes])[:, None]
    skipped = crowd[None] | (true_areas[None] < lows) | (true_areas[None] > highs)
    outside = (found_areas[None] < lows) | (found_areas[None] > highs)
    if void is not None:
        outside = outside | void[None]
    shape = (len(sizes), len(thresholds), count)
    hits, ignored = np.zeros(shape, dtype=np.bool_), np.zeros(shape, dtype=np.bool_)
    ious = np.zeros(count)
    free = np.ones((len(sizes), len(thresholds), true_count), dtype=np.bool_)
    floor = np.minimum(thresholds, 1 - 1e-10)[None, :, None]
    for index in range(count):
        reach = np.flatnonzero(overlaps[index] >= floor[0, 0, 0])
        if not len(reach):
            ignored[:, :, index] = outside[:, None, index]
            continue
        # COCO lets the later of two equal true objects win, and prefers one that counts to an ignored one.
        reach = reach[np.argsort(-overlaps[index, reach] - 1e-12 * reach, kind="stable")]
        fits = free[:, :, reach] & (overlaps[index, reach] >= floor)
        counts = fits & ~skipped[:, None, reach]
        hit = counts.any(axis=2)
        taken = np.where(hit, counts.argmax(axis=2), fits.argmax(axis=2))
        matched = fits.any(axis=2)
        where = reach[taken]
        hits[:, :, index] = hit
        ignored[:, :, index] = np.where(matched, ~hit, outside[:, None, index])
        sides, steps = np.nonzero(matched & ~crowd[where])
        free[sides, steps, where[sides, steps]] = False
        if hit[0, 0]:
            ious[index] = overlaps[index, where[0, 0]]
    return ImageMatches(scores, ious, hits, ignored, (~skipped).sum(axis=1).astype(np.int64))


class ClassMatches:
    """The matches of one class and size range in all images.

    Parameters
    ----------
    matches
        One for each image.
    size
        Number of the size range.

    Attributes
    ----------
    images, scores, ious
        ``(D,)`` of all found objects that count at any threshold, by falling score.
    hits, ignored
        ``(T, D)``.
    positives
        ``(N,)`` true objects of each image.
    """

    def __init__(self, matches: Sequence[ImageMatches], size: int = 0) -> None:
        images = np.repeat(np.arange(len(matches)), [len(one.scores) for one in matches])
        scores = _joined([one.scores for one in matches])
        order = np.argsort(-scores, kind="stable")
        hits = np.concatenate([one.hits[size] for one in matches], axis=1)[:, order] if matches else np.zeros((0, 0), dtype=np.bool_)
        ignored = np.concatenate([one.ignored[size] for one in matches], axis=1)[:, order] if matches else hits
        kept = np.flatnonzero(~ignored.all(axis=0))
        self.images: Ints = images[order][kept].astype(np.int64)
        self.scores: Floats = scores[order][kept]
        self.ious: Floats = _joined([one.ious for one in matches])[order][kept]
        self.hits: Flags = hits[:, kept]
        self.ignored: Flags = ignored[:, kept]
        self.positives: Floats = np.array([one.positives[size] for one in matches], dtype=np.float64)

    def average_precision(self, weights: Floats) -> Floats:
        """Give COCO's average precision (101 recalls) at each threshold ``(B, T)`` for weights ``(B, N)``; NaN where there is no true object."""
        out = np.full((len(weights), len(self.hits)), np.nan)
        positives = weights @ self.positives
        step = max(1, _CHUNK // max(1, len(self.images)))
        for start in range(0, len(weights), step):
            rows = np.flatnonzero(positives[start : start + step] > 0) + start
            if len(rows):
                out[rows] = self._precision_area(weights[rows], positives[rows])
        return out

    def counts(self, weights: Floats, threshold: float, at: int = 0) -> tuple[Floats, Floats, Floats, Floats]:
        """Count at a score threshold: hits, false alarms, misses and the hits' mean IoU, each ``(B,)``; `at` is the number of the IoU threshold.

        The IoU is that of the lowest threshold's matches.
        """
        called = (self.scores >= threshold) & ~self.ignored[at]
        images = len(self.positives)
        hit = called & self.hits[at]
        right = np.bincount(self.images[hit], minlength=images).astype(np.float64)
        wrong = np.bincount(self.images[called & ~self.hits[at]], minlength=images).astype(np.float64)
        overlap = np.bincount(self.images[hit], weights=self.ious[hit], minlength=images)
        hits = weights @ right
        mean = np.full(len(weights), np.nan)
        np.divide(weights @ overlap, hits, out=mean, where=hits > 0)
        return hits, weights @ wrong, weights @ (self.positives - right), mean

    def _precision_area(self, weights: Floats, positives: Floats) -> Floats:
        drawn = weights[:, self.images]
        areas = np.zeros((len(weights), len(self.hits)))
        whole = np.cumsum(drawn, axis=1)
        offsets = 2.0 * np.arange(len(weights))[:, None]
        for at, (hits, ignored) in enumerate(zip(self.hits, self.ignored, strict=True)):
            places = np.flatnonzero(hits)
            if not len(places):
                continue
            found = np.cumsum(drawn[:, places], axis=1)
            reached = whole[:, places]
            if ignored.any():
                # What is ignored at this threshold is little beside all: it is taken off where it is counted.
                gone = np.flatnonzero(ignored)
                lost = np.concatenate([np.zeros((len(weights), 1)), np.cumsum(drawn[:, gone], axis=1)], axis=1)
                reached = reached - lost[:, np.searchsorted(gone, places)]
            precision = np.divide(found, reached, out=np.zeros_like(found), where=reached > 0)
            envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
            recalls = found / positives[:, None]
            # One search for all rows: each row's recalls are moved to an interval of their own.
            first = np.searchsorted((recalls + offsets).ravel(), (_RECALLS + offsets).ravel()).reshape(len(weights), -1)
            first -= np.arange(len(weights))[:, None] * len(places)
            padded = np.concatenate([envelope, np.zeros((len(weights), 1))], axis=1)
            areas[:, at] = np.take_along_axis(padded, np.minimum(first, len(places)), axis=1).mean(axis=1)
        return areas


def best_threshold(one: ClassMatches) -> float:
    """Find the score at which a class's F1 (IoU .5) is largest: half-way to the next lower score; 0 where nothing was found."""
    if not len(one.scores):
        return 0.0
    counts = ~one.ignored[0]
    scores = one.scores[counts]
    if not len(scores):
        return 0.0
    hits = np.cumsum(one.hits[0][counts])
    f1 = 2 * hits / np.maximum(np.arange(1, len(scores) + 1) + one.positives.sum(), 1)
    # Of objects with one score all are found or none.
    last = np.append(scores[1:] < scores[:-1], True)
    at = int(np.argmax(np.where(last, f1, -1.0)))
    below = scores[at + 1] if at + 1 < len(scores) else 0.0
    return float(scores[at] + below) / 2


def _joined(parts: Sequence[Floats]) -> Floats:
    return np.concatenate([np.zeros(0), *parts])
