"""Folds: the validation part is the first; the training part is cut into the others, groups together."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold

MOST = 5
"""Folds of a small dataset, the validation part one of them."""

_MIDDLE, _LARGE = 1000, 5000
"""Samples from which on there are three folds, and only the validation part: what is judged on so many varies little, and each fold costs a fit."""

_ENOUGH = 2


def make_folds(labels: NDArray[np.int64], training: NDArray[np.bool_], groups: list[str], *, seed: int) -> tuple[NDArray[np.int64], int]:
    """Give each sample its fold.

    Fold 0 is what every candidate is compared on: the dataset's validation part. Where that is missing, or lacks a class, fold 0 is
    drawn anew from both parts together, as are the others.

    Parameters
    ----------
    labels, training, groups
        Of the samples; labels ``(N,)``, or ``(N, K)`` of 0 and 1.
    seed
        Of the draw.

    Returns
    -------
    folds : ndarray
        ``(N,)`` int64; -1 for samples that are only ever trained on.
    count : int
        Number of folds; 1 where only the validation part is used.
    """
    count = len(labels)
    held_out = ~training
    usable = _complete(labels[held_out], labels) and _complete(labels[training], labels)
    usable = usable and int(held_out.sum()) >= _ENOUGH * (labels.shape[1] if labels.ndim == 2 else len(np.unique(labels)))
    folds = np.full(count, -1, dtype=np.int64)
    if usable:
        folds[held_out] = 0
        most = fold_count(count)
        if most < 2:
            return folds, 1
        pieces = _cut(labels[training], [groups[i] for i in np.flatnonzero(training)], max(2, most - 1), seed)
        if pieces is None:
            return folds, 1
        folds[training] = pieces + 1
        return folds, int(folds.max()) + 1
    pieces = _cut(labels, groups, max(2, fold_count(count)), seed)
    if pieces is None:
        # Too few groups to hold any out: halves by sample, the best that can be done with a handful of images.
        pieces = _cut(labels, [str(i) for i in range(count)], 2, seed)
    if pieces is None:
        # A class with a single image: it is trained on, and judged on itself.
        return np.zeros(count, dtype=np.int64), 0
    return pieces, int(pieces.max()) + 1


def fold_count(count: int) -> int:
    """Give the number of folds for so many samples: 5, 3, or 1 for the validation part alone."""
    return MOST if count < _MIDDLE else 3 if count < _LARGE else 1


def hold_out_share(present: NDArray[np.int64], groups: list[str], *, share: float, seed: int) -> NDArray[np.bool_]:
    """Say which samples are held out where there is no validation part: about a share of them, groups together, with a share of everything.

    Parameters
    ----------
    present
        ``(N, K)`` of 0 and 1: what each sample has, such as an object of each class, or many objects.
    groups
        ``N`` names.
    share
        Of the samples, at most one half.
    seed
        Of the draws between equals.
    """
    numbers = np.unique(groups, return_inverse=True)[1].astype(np.int64)
    folds = stratify_labels(present, numbers, max(2, round(1.0 / share)), seed=seed)
    # A fold of groups that are large, or alone in having a class, may be small or lack much: the fullest is held out.
    sizes = np.bincount(folds)
    kinds = np.array([present[folds == one].any(axis=0).sum() for one in range(len(sizes))])
    wanted = share * len(folds)
    best = int(np.lexsort((np.abs(sizes - wanted), -kinds))[0])
    held_out: NDArray[np.bool_] = folds == best
    return held_out


def _cut(labels: NDArray[np.int64], groups: list[str], most: int, seed: int) -> NDArray[np.int64] | None:
    """Cut into at most so many folds, such that each fold's complement has every class; None where that cannot be."""
    numbers = np.unique(groups, return_inverse=True)[1].astype(np.int64)
    if labels.ndim == 2:
        return _cut_labels(labels, numbers, most, seed)
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


def _complete(part: NDArray[np.int64], labels: NDArray[np.int64]) -> bool:
    """Say whether a part has a sample of every class that there is."""
    if labels.ndim == 1:
        return len(np.unique(part)) == len(np.unique(labels))
    return bool((part.any(axis=0) == labels.any(axis=0)).all())


def _cut_labels(labels: NDArray[np.int64], numbers: NDArray[np.int64], most: int, seed: int) -> NDArray[np.int64] | None:
    least = min((len(np.unique(numbers[labels[:, one] == 1])) for one in range(labels.shape[1]) if labels[:, one].any()), default=0)
    for count in range(min(most, max(2, least), int(numbers.max()) + 1), 1, -1):
        folds = stratify_labels(labels, numbers, count, seed=seed)
        # A label of a single group cannot be on both sides: its figures will say so.
        if len(np.unique(folds)) == count and (least < 2 or all(_complete(labels[folds != number], labels) for number in range(count))):
            return folds
    return None


def stratify_labels(labels: NDArray[np.int64], groups: NDArray[np.int64], count: int, *, seed: int) -> NDArray[np.int64]:
    """Cut samples of several labels into folds such that each has its share of each label, groups together.

    Iterative stratification (Sechidis, Tsoumakas and Vlahavas, ECML 2011), with whole groups in the place of samples: the rarest label first, each group
    to the fold that lacks it most.

    Parameters
    ----------
    labels
        ``(N, K)`` of 0 and 1; samples without any are shared out last.
    groups
        ``(N,)`` numbers.
    count
        Number of folds.
    seed
        Of the draws between equals.

    Returns
    -------
    ndarray
        ``(N,)`` int64, 0 to `count` - 1.
    """
    rng = np.random.Generator(np.random.Philox(key=seed))
    units, place = np.unique(groups, return_inverse=True)
    has = np.zeros((len(units), labels.shape[1]), dtype=np.float64)
    np.add.at(has, place, labels.astype(np.float64))
    sizes = np.bincount(place).astype(np.float64)
    wanted = np.tile(has.sum(axis=0) / count, (count, 1))
    room = np.full(count, sizes.sum() / count)
    fold = np.full(len(units), -1, dtype=np.int64)

    def put(unit: int, lacking: NDArray[np.float64]) -> None:
        keys = np.lexsort((rng.random(count), -room, -lacking))
        chosen = int(keys[0])
        fold[unit] = chosen
        wanted[chosen] -= has[unit]
        room[chosen] -= sizes[unit]

    while True:
        free = fold < 0
        left = (has[free] > 0).sum(axis=0)
        if not left.any():
            break
        rarest = int(np.argmin(np.where(left > 0, left, np.iinfo(np.int64).max)))
        waiting = np.flatnonzero(free & (has[:, rarest] > 0))
        # Large groups first: small ones even out what they leave.
        for unit in waiting[np.lexsort((rng.random(len(waiting)), -has[waiting, rarest]))]:
            put(int(unit), wanted[:, rarest])
    rest = np.flatnonzero(fold < 0)
    for unit in rest[np.lexsort((rng.random(len(rest)), -sizes[rest]))]:
        put(int(unit), room)
    result: NDArray[np.int64] = fold[place]
    return result
