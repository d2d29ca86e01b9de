"""Kolmogorov-Smirnov's test of every feature, corrected for their number (Rabanser, Guennemann and Lipton, "Failing loudly", NeurIPS 2019)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from oteo_core.evaluation.statistics import holm
from oteo_translate.shift.sides import Floats, Sides


@dataclass(frozen=True, slots=True)
class Marginals:
    """What the tests of single features gave.

    Parameters
    ----------
    distances
        ``(D,)`` largest difference of the two distribution functions, 0 to 1.
    p_values
        ``(D,)``, corrected by Holm's method for their number.
    """

    distances: Floats
    p_values: Floats

    @property
    def strongest(self) -> int:
        """The feature with the least p-value; of several the one with the largest distance."""
        return int(np.lexsort((-self.distances, self.p_values))[0])


def marginal_tests(values: Floats, sides: Sides, rng: np.random.Generator) -> Marginals:
    """Test each column of ``(N, D)`` features, on one image of each group: images of a group are not independent."""
    rows = sides.one_each(rng)
    home, shifted = values[rows[~sides.shifted]], values[rows[sides.shifted]]
    found = [stats.ks_2samp(home[:, column], shifted[:, column]) for column in range(values.shape[1])]
    return Marginals(np.array([float(one.statistic) for one in found]), np.array(holm([float(one.pvalue) for one in found])))
