"""Kernel two-sample test: the maximum mean discrepancy (Gretton, Borgwardt, Rasch, Schoelkopf and Smola, J. Mach. Learn. Res. 13, 2012)."""

from __future__ import annotations

import numpy as np
from scipy.spatial.distance import cdist

from oteo_translate.shift.scaling import standardised
from oteo_translate.shift.sides import Flags, Floats, Sides

WIDTHS = (0.5, 1.0, 2.0)
"""Widths of the mixture's kernels, as shares of the median distance."""


def kernel(values: Floats, widths: tuple[float, ...] = WIDTHS) -> Floats:
    """Give the mean of Gaussian kernels between all rows of ``(N, D)``; widths are multiples of the median distance of different rows.

    ``exp(-d^2 / (2 (w m)^2))``, m the median of all distances above 0 (section 8 of the paper); ``(N, N)``, 0 to 1.
    """
    squares = cdist(values, values, "sqeuclidean")
    between = squares[np.triu_indices(len(values), 1)]
    positive = between[between > 1e-12]
    median = float(np.median(positive)) if len(positive) else 1.0
    return np.asarray(np.mean([np.exp(-squares / (2.0 * width**2 * median)) for width in widths], axis=0))


def group_kernel(values: Floats, sides: Sides) -> Floats:
    """Give the kernel between groups ``(G, G)``: the mean over their images' pairs, of features ``(N, D)`` that are standardised first.

    The diagonal is 0: a group is not compared with itself.
    """
    images = kernel(standardised(values))
    groups = sides.average(sides.average(images).T)
    np.fill_diagonal(groups, 0.0)
    return groups


def discrepancies(groups: Floats, dealt: Flags) -> Floats:
    """Give the unbiased estimate of the squared discrepancy (equation 3 of the paper) for each deal.

    Parameters
    ----------
    groups
        ``(G, G)`` of `group_kernel`.
    dealt
        ``(B, G)``: which groups are of the shifted domain; two at least on each side.

    Returns
    -------
    ndarray
        ``(B,)``; about 0 without shift, where it may be negative; below 2.
    """
    right = dealt.astype(np.float64)
    many, few = right.sum(axis=1), (1.0 - right).sum(axis=1)
    within_right = ((right @ groups) * right).sum(axis=1)
    across = right @ groups.sum(axis=1) - within_right
    within_left = groups.sum() - within_right - 2.0 * across
    return np.asarray(within_left / (few * (few - 1.0)) + within_right / (many * (many - 1.0)) - 2.0 * across / (few * many))


def reweighted_discrepancies(groups: Floats, dealt: Flags, strata: np.ndarray) -> Floats:
    """Give the squared discrepancy between home, reweighted to the shifted domain's class shares, and the shifted domain, for each deal.

    Parameters
    ----------
    groups
        ``(G, G)`` of `group_kernel`.
    dealt
        ``(B, G)``, dealt within strata.
    strata
        ``(G,)`` class of each group, from 0; each has groups on both sides.

    Returns
    -------
    ndarray
        ``(B,)``; without the terms of groups with themselves, which a deal does not change in the mean.
    """
    classes = np.arange(int(strata.max()) + 1)
    shifted = np.array([(dealt[0] & (strata == one)).sum() for one in classes], dtype=np.float64)
    home = np.array([(~dealt[0] & (strata == one)).sum() for one in classes], dtype=np.float64)
    shares = shifted / shifted.sum()
    weights = np.where(dealt, 1.0 / shifted.sum(), -(shares / home)[strata][None, :])
    return np.asarray(((weights @ groups) * weights).sum(axis=1))
