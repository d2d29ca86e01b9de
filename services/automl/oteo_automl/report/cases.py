"""Which test images of a classifier are shown."""

from __future__ import annotations

import numpy as np

from oteo_core.evaluation.bootstrap import Floats, Ints


def choose_cases(labels: Ints, probabilities: Floats, groups: Ints, *, worst: int = 12, unsure: int = 6) -> tuple[list[int], list[int]]:
    """Choose test images to show.

    Parameters
    ----------
    labels
        ``(N,)``.
    probabilities
        ``(N, K)``.
    groups
        Group numbers ``(N,)``; of each group only one image is shown, since copies would crowd out others.
    worst, unsure
        How many at most.

    Returns
    -------
    worst, unsure : list of int
        Mistakes, the surest first; and the images with the least difference between the two most probable classes, without those groups.
    """
    predicted = probabilities.argmax(axis=1)
    confidence = probabilities.max(axis=1)
    wrong = np.flatnonzero(predicted != labels)
    ordered = np.sort(probabilities, axis=1)
    margin = ordered[:, -1] - ordered[:, -2]
    shown: set[int] = set()

    def first(candidates: Ints, limit: int) -> list[int]:
        chosen: list[int] = []
        for index in candidates.tolist():
            if len(chosen) < limit and int(groups[index]) not in shown:
                shown.add(int(groups[index]))
                chosen.append(index)
        return chosen

    mistakes = first(wrong[np.argsort(-confidence[wrong], kind="stable")], worst)
    return mistakes, first(np.argsort(margin, kind="stable"), unsure)
