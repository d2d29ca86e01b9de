"""Logistic regressions of the same images with many different labels, all at once: a permutation test needs hundreds of them."""

from __future__ import annotations

import numpy as np

from oteo_translate.shift.sides import Floats

_STEPS = 25
_ENOUGH = 1e-7


def fit_all(values: Floats, targets: Floats, weights: Floats, penalty: float = 1.0) -> Floats:
    """Fit ridge logistic regressions by Newton's method.

    Minimises for each row of labels ``sum_i w_i log(1 + exp(-t_i f(x_i))) + penalty / 2 |b|^2`` with ``f(x) = b x + c``, the intercept c without
    penalty, as scikit-learn's `LogisticRegression` does with ``C = 1 / penalty`` and sample weights.

    Parameters
    ----------
    values
        ``(N, D)``.
    targets
        ``(B, N)`` of 0 and 1, a row for each regression.
    weights
        ``(B, N)``, 0 and up.
    penalty
        Of the squared weights.

    Returns
    -------
    ndarray
        ``(B, D + 1)``: weights, then the intercept.
    """
    count, width = values.shape
    design = np.concatenate([values, np.ones((count, 1))], axis=1)
    products = (design[:, :, None] * design[:, None, :]).reshape(count, -1)
    ridge = np.full(width + 1, penalty)
    ridge[-1] = 1e-8
    found = np.zeros((len(targets), width + 1))
    for _ in range(_STEPS):
        chance = _sigmoid(found @ design.T)
        slope = (weights * (chance - targets)) @ design + found * ridge
        bend = ((weights * chance * (1.0 - chance)) @ products).reshape(-1, width + 1, width + 1) + np.diag(ridge)
        step = np.linalg.solve(bend, slope[:, :, None])[:, :, 0]
        # Far from the optimum the curve is flatter than at the optimum, and a whole step may leap over it.
        size = np.abs(step).max(axis=1, keepdims=True)
        found -= step * np.minimum(1.0, 2.0 / np.maximum(size, 1e-12))
        if float(size.max()) < _ENOUGH:
            break
    return found


def _sigmoid(values: Floats) -> Floats:
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(values, -40.0, 40.0))))
