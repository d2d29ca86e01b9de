"""The smallest shift that so many images could have shown: effects that a test finds four times in five, or as often as is asked."""

from __future__ import annotations

import math

import numpy as np
from scipy import stats

from oteo_core.evaluation.bootstrap import Floats

POWER = 0.8
_REACH = float(stats.norm.ppf(POWER))
_EFFICIENCY = 0.64


def detectable_distance(home: float, shifted: float, alpha: float, power: float = POWER) -> float:
    """Give the distance of distribution functions that Kolmogorov-Smirnov's test finds, in a share `power` of all cases.

    The critical value (Smirnov's limit) plus what the estimate may fall short of the truth: its standard deviation is at most that of a share of
    one half, on both sides. 1 where no distance would be found for sure.
    """
    rate = math.sqrt(1.0 / home + 1.0 / shifted)
    return float(min(1.0, float(stats.kstwobign.isf(alpha)) * rate + float(stats.norm.ppf(power)) * 0.5 * rate))


def detectable_auroc(null: Floats, home: int, shifted: int, alpha: float) -> float:
    """Give the AUROC of telling the sides apart that would be found: above the deals' quantile (by their mean and spread), with Hanley and McNeil's (1982) error."""
    critical = float(null.mean() + stats.norm.isf(alpha) * null.std())
    area = min(1.0, max(0.5, critical))
    for _ in range(50):
        one, other = area / (2 - area), 2 * area**2 / (1 + area)
        variance = (area * (1 - area) + (home - 1) * (one - area**2) + (shifted - 1) * (other - area**2)) / (home * shifted)
        area = min(1.0, max(0.5, critical + _REACH * math.sqrt(max(0.0, variance))))
    return area


def detectable_discrepancy(null: Floats, groups: Floats, home: int, shifted: int, alpha: float) -> float:
    """Give the discrepancy (not squared) that the kernel test would find.

    The estimate's variance under a shift of size m is that of the deals and ``4 m^2 s (1/n + 1/k)`` at most, where s is the largest eigenvalue of the
    centred kernel over its size: the variance along the direction in which the means differ (Gretton et al. 2012, section 6.1).

    Parameters
    ----------
    null
        ``(B,)`` squared discrepancies of the deals.
    groups
        ``(G, G)`` of `group_kernel`.
    home, shifted
        Groups on either side.
    alpha
        Level.
    """
    critical = float(null.mean() + stats.norm.isf(alpha) * null.std())
    centred = groups - groups.mean(axis=0) - groups.mean(axis=1)[:, None] + groups.mean()
    spread = max(0.0, float(np.linalg.eigvalsh(centred)[-1]) / len(groups))
    square = max(critical, 1e-12)
    for _ in range(100):
        square = max(critical, 1e-12) + _REACH * math.sqrt(float(null.var()) + 4.0 * square * spread * (1.0 / home + 1.0 / shifted))
    return math.sqrt(min(2.0, square))


def detectable_difference(home: int, shifted: int, alpha: float, figures: int = 1) -> float:
    """Give the difference of one figure's means, in standard deviations (Cohen's d), that Kolmogorov-Smirnov's test finds among several figures.

    As a t-test would, with 0.64 of its images: the tests' relative efficiency for normal distributions (Capon, Ann. Math. Stat. 36, 1965).
    """
    return (float(stats.norm.isf(alpha / figures / 2)) + _REACH) * math.sqrt((1.0 / home + 1.0 / shifted) / _EFFICIENCY)
