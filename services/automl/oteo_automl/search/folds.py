"""Folds: the validation part is the first; the training part is cut into the others, groups together."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold

MOST = 5
_ENOUGH = 2


def make_folds(
    labels: NDArray[np.int64], training: NDArray[np.bool_], groups: list[str], *, seed: int, cheap_limit: int = 3000
) -> tuple[NDArray[np.int64], int]:
    """Give each sample its fold.

    Fold 0 is what every candidate is compared on: the dataset's validation part. Where that is missing, or lacks a class, fold 0 is
    drawn anew from both parts together, as are the others.

    Parameters
    ----------
    labels, training, groups
        Of the samples.
    seed
        Of the draw.
    cheap_limit
        With more samples than this there is no cross-validation: the validation part is large enough.

    Returns
    -------
    folds : ndarray
        ``(N,)`` int64; -1 for samples that are only ever trained on.
    count : int
        Number of folds; 1 where only the validation part is used.
    """
    count = len(labels)
    classes = np.unique(labels)
    held_out = ~training
    usable = all((labels[held_out] == one).sum() >= 1 and (labels[training] == one).sum() >= 1 for one in classes)
    usable = usable and int(held_out.sum()) >= _ENOUGH * len(classes)
    folds = np.full(count, -1, dtype=np.int64)
    if usable:
        folds[held_out] = 0
        if count > cheap_limit:
            return folds, 1
        pieces = _cut(labels[training], [groups[i] for i in np.flatnonzero(training)], MOST - 1, seed)
        if pieces is None:
            return folds, 1
        folds[training] = pieces + 1
        return folds, int(folds.max()) + 1
    pieces = _cut(labels, groups, MOST, seed)
    if pieces is None:
        # Too few groups to hold any out: halves by sample, the best that can be done with a handful of images.
        pieces = _cut(labels, [str(i) for i in range(count)], 2, seed)
    if pieces is None:
        # A class with a single image: it is trained on, and judged on itself.
        return np.zeros(count, dtype=np.int64), 0
    return pieces, int(pieces.max()) + 1


def _cut(labels: NDArray[np.int64], groups: list[str], most: int, seed: int) -> NDArray[np.int64] | None:
    """Cut into at most so many folds, such that each fold's complement has every class; None where that cannot be."""
    numbers = np.unique(groups, return_inverse=True)[1]
    classes = np.unique(labels)
    least = min(len(np.unique(numbers[labels == one])) for one in classes)
    for count in range(min(most, least), 1, -1):
        folds = np.zeros(len(labels), dtype=np.int64)
        splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed % 2**32)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for number, (_, held) in enumerate(splitter.split(np.zeros(len(labels)), labels, numbers)):
                folds[held] = number
        if all(len(np.unique(labels[folds != number])) == len(classes) for number in range(count)):
            return folds
    return None
