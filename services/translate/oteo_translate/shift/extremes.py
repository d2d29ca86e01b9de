"""Which images differ most from home, and which are typical of home."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from oteo_translate.shift.scaling import components
from oteo_translate.shift.sides import Floats, Sides

MOST = 10


@dataclass(frozen=True, slots=True)
class Extreme:
    """An image far from home.

    Parameters
    ----------
    row
        Its place among the shifted images.
    distance
        From home's middle, in home's standard deviations (root mean square over features).
    p_value
        Conformal: the share of home's images at least as far, never 0 (Vovk, Gammerman and Shafer 2005, section 2.2).
    decision
        What the classifier that tells the sides apart says of it, held out: the chance of being shifted, 0 to 1.
    """

    row: int
    distance: float
    p_value: float
    decision: float


def find_extremes(features: list[Floats], sides: Sides, decisions: Floats | None, most: int = MOST) -> tuple[list[Extreme], list[int]]:
    """Give the shifted images that differ most, farthest first, and home's most typical rows.

    Parameters
    ----------
    features
        ``(N + M, D)`` each, home first.
    sides
        Of all images.
    decisions
        ``(N + M,)`` logits of a classifier that tells the sides apart, where it does; None: by distance alone.
    most
        Of either.
    """
    home = ~sides.shifted[sides.groups]
    reduced = np.concatenate([components(values) for values in features], axis=1)
    middle = np.median(reduced[home], axis=0)
    spread = reduced[home].std(axis=0)
    # What never varies at home would make any other value infinitely far away.
    spread = np.maximum(spread, 0.05 * max(1e-9, float(reduced.std())))
    distance = np.sqrt((((reduced - middle) / spread) ** 2).mean(axis=1))
    ours, theirs = distance[home], distance[~home]
    chances = 1.0 / (1.0 + np.exp(-np.clip(decisions, -40, 40))) if decisions is not None else np.full(len(distance), 0.5)
    ranked = np.lexsort((-theirs, -chances[~home])) if decisions is not None else np.argsort(-theirs, kind="stable")
    found = [
        Extreme(int(row), float(theirs[row]), float((1 + int((ours >= theirs[row]).sum())) / (1 + len(ours))), float(chances[~home][row]))
        for row in ranked[:most]
    ]
    return found, [int(row) for row in np.argsort(ours, kind="stable")[:most]]
