"""Features brought to one scale, by what both sides have together: the same whichever way the sides are dealt, so that permutation tests stay exact."""

from __future__ import annotations

import numpy as np

from oteo_translate.shift.sides import Floats

COMPONENTS = 16
"""Directions that long features are brought down to, where a test looks at each or learns a weight for each."""


def standardised(values: Floats) -> Floats:
    """Bring each column of ``(N, D)`` to mean 0 and standard deviation 1; one that does not vary becomes 0, and what is not finite the column's middle."""
    finite = np.where(np.isfinite(values), values, np.nan)
    known = np.isfinite(finite).any(axis=0)
    middle = np.zeros(values.shape[1])
    if known.any():
        middle[known] = np.nanmedian(finite[:, known], axis=0)
    filled = np.where(np.isnan(finite), middle, finite)
    centred = filled - filled.mean(axis=0)
    spread = centred.std(axis=0)
    # What differs in the last digits only is rounding, not a difference.
    varies = spread > 1e-9 * np.maximum(1.0, np.abs(filled).max(axis=0, initial=0.0))
    scaled: Floats = np.where(varies, centred / np.where(varies, spread, 1.0), 0.0)
    return scaled


def components(values: Floats, most: int = COMPONENTS) -> Floats:
    """Give the scores ``(N, d)`` of the first d <= `most` principal components of standardised columns; fewer columns are left as they are.

    Scores keep their variances' proportions and are scaled together, to a mean variance of 1.
    """
    scaled = standardised(values)
    if scaled.shape[1] <= most:
        return scaled
    left, sizes, _ = np.linalg.svd(scaled, full_matrices=False)
    count = max(1, min(most, int((sizes > 1e-9 * max(1.0, float(sizes[0]))).sum())))
    scores = left[:, :count] * sizes[:count]
    return np.asarray(scores / max(1e-12, float(np.sqrt((scores**2).mean()))))
