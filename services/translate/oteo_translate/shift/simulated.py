"""How much a model loses for each point of confidence, learned on shifts that are made on purpose.

Guillory, Shankar, Ebrahimi, Darrell and Schmidt ("Predicting with confidence on unseen distributions", ICCV 2021) regress the loss on the difference
of confidences over shifts whose loss is known, as a model's confidence seldom falls by as much as its figure. Here the known shifts are
`oteo_core.evaluation.shifts` (light, colour, focus, noise) on home's annotated images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oteo_core.augmentation import refusal
from oteo_core.evaluation.bootstrap import generator
from oteo_core.evaluation.shifts import SHIFTS, apply_shift
from oteo_translate.shift.sides import Floats

MOST_IMAGES = 24
LEAST_IMAGES = 8
_LEAST_DROP = 0.003
"""Falls of confidence below this are noise, and their ratios to a loss mean nothing."""


@dataclass(frozen=True, slots=True)
class Simulated:
    """What known shifts cost: falls of mean confidence and of the mean score, ``(S,)`` each, one for each shift and strength."""

    confidence: Floats
    score: Floats

    @property
    def slope(self) -> float:
        """Loss of score for a loss of confidence: least squares through the origin."""
        return float((self.confidence * self.score).sum() / max(1e-12, float((self.confidence**2).sum())))

    def ratios(self) -> tuple[Floats, Floats]:
        """Give the ratios of the shifts that cost confidence, ``(R,)``, and what each weighs: the larger its fall, the more. Both may be empty."""
        used = self.confidence > _LEAST_DROP
        return self.score[used] / self.confidence[used], self.confidence[used] / max(1e-12, float(self.confidence[used].sum()))


def simulate(
    images: NDArray[Any],
    truths: Sequence[Any],
    judge: Callable[[NDArray[Any]], tuple[list[Any], Floats]],
    scores: Callable[[Sequence[Any], Sequence[Any]], Floats],
    *,
    seed: int,
    check: Callable[[], None] = lambda: None,
) -> Simulated | None:
    """Apply known shifts to annotated home images.

    Parameters
    ----------
    images
        Prepared, ``(N, H, W, C)``.
    truths
        N; None where there is none.
    judge, scores
        Of `oteo_translate.tasks.model.TaskModel`.
    seed
        Chooses `MOST_IMAGES` of the images, and draws noise.
    check
        Called before each shift.

    Returns
    -------
    Simulated or None
        None where fewer than `LEAST_IMAGES` images have a truth, or no shift applies to such images.
    """
    known = np.array([row for row, truth in enumerate(truths) if truth is not None], dtype=np.int64)
    if len(known) < LEAST_IMAGES:
        return None
    rows = np.sort(generator(seed, "shift", "simulated").permutation(known)[:MOST_IMAGES])
    chosen = [np.asarray(images[int(row)]) for row in rows]
    right = [truths[int(row)] for row in rows]

    def figures(batch: list[NDArray[Any]]) -> tuple[float, float]:
        answers, confidence = judge(np.stack(batch))
        return float(np.mean(confidence)), float(np.nanmean(scores(right, answers)))

    clean = figures(chosen)
    fallen: list[tuple[float, float]] = []
    for shift in SHIFTS:
        if refusal(shift.policy(1).steps[0], chosen[0]):
            continue
        for strength in (1, 2):
            check()
            changed = figures([apply_shift(one, shift, strength, place=place, seed=seed) for place, one in enumerate(chosen)])
            fallen.append((clean[0] - changed[0], clean[1] - changed[1]))
    finite = np.array([pair for pair in fallen if np.isfinite(pair).all()], dtype=np.float64).reshape(-1, 2)
    return Simulated(finite[:, 0], finite[:, 1]) if len(finite) else None
