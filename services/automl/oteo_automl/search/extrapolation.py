"""How a learning curve will end, and whether it can still end better than what there is.

Curves are explained by power laws and exponentials ``a + b g(t)``, as in Domhan, Springenberg and Hutter, "Speeding up automatic
hyperparameter optimization of deep neural networks by extrapolation of learning curves" (IJCAI 2015). Their Markov chains are not
needed: for a fixed shape ``g`` the level ``a`` and the size ``b`` have a closed-form posterior, so a grid of shapes, each weighed by
its evidence, gives the whole predictive distribution at once. It is the kind of prior that LC-PFN (Adriaensen et al., NeurIPS 2023)
approximates by a network, and takes well under a millisecond.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.special import logsumexp

from oteo_automl.search.result import EpochRecord

LEAST = 4
"""Judged epochs below which nothing is said."""

HOPELESS = 0.03
"""A trial whose chance of ending better than the best is smaller is stopped."""

_POWERS = np.geomspace(0.08, 2.5, 16)
_DECAYS = np.geomspace(0.015, 1.0, 16)
_NOISE = 0.06
"""Usual spread of a judged figure about its curve, as a share of what was gained so far."""

_SPREAD = 1.5
"""Of the prior on level and size, in units of what was gained so far."""

_SHAPE = 2.0
_DRIFT = 0.12
"""A learning rate that falls helps at the end, which no curve shows before: so much of the gain so far for each e-fold of epochs to come."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """The predictive distribution of a curve's value at an epoch: a mixture of Student's t distributions.

    Parameters
    ----------
    weights, locations, scales
        ``(M,)`` of the mixture; weights sum to one.
    freedom
        Degrees of freedom, the same for all.
    """

    weights: NDArray[np.float64]
    locations: NDArray[np.float64]
    scales: NDArray[np.float64]
    freedom: float

    @property
    def mean(self) -> float:
        """Expected value."""
        return float(self.weights @ self.locations)

    def below(self, value: float) -> float:
        """Give the probability of ending below a value, 0 to 1."""
        return float(self.weights @ stats.t.cdf((value - self.locations) / self.scales, self.freedom))

    def quantile(self, share: float) -> float:
        """Give the value that is not exceeded with this probability, to a thousandth of the spread."""
        low = float((self.locations - 60 * self.scales).min())
        high = float((self.locations + 60 * self.scales).max())
        for _ in range(60):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if self.below(middle) < share else (low, middle)
        return 0.5 * (low + high)


def forecast(epochs: Sequence[float], values: Sequence[float], horizon: float) -> Forecast | None:
    """Predict a falling curve at an epoch.

    Parameters
    ----------
    epochs
        At which it was measured, from 1, rising.
    values
        Measured, smaller is better; what is not finite is left out.
    horizon
        The epoch asked for, at least the last of `epochs`.

    Returns
    -------
    Forecast or None
        None with fewer than `LEAST` finite values.
    """
    times = np.asarray(epochs, dtype=np.float64)
    heights = np.asarray(values, dtype=np.float64)
    known = np.isfinite(heights) & (times > 0)
    times, heights = times[known], heights[known]
    if len(times) < LEAST:
        return None
    origin = float(heights[0])
    scale = max(float(np.ptp(heights)), 0.02 * float(np.abs(heights).mean()), 1e-6)
    target = (heights - origin) / scale
    last, end = float(times[-1]), max(float(horizon), float(times[-1]))
    first = times[0]
    shapes = np.concatenate([(times / first)[None] ** -_POWERS[:, None], np.exp(-_DECAYS[:, None] * (times - first)[None])])
    ends = np.concatenate([(end / first) ** -_POWERS, np.exp(-_DECAYS * (end - first))])

    # Normal-inverse-gamma: level and size about -1 and 1, so that the curve begins where it was first measured.
    prior_mean = np.array([-1.0, 1.0])
    precision = np.eye(2) * (_NOISE / _SPREAD) ** 2
    rate = _SHAPE * _NOISE**2
    design = np.stack([np.ones_like(shapes), shapes], axis=2)
    after = precision + design.transpose(0, 2, 1) @ design
    means = np.linalg.solve(after, (precision @ prior_mean + np.einsum("mnp,n->mp", design, target))[..., None])[..., 0]
    quadratic = np.einsum("mp,mpq,mq->m", means, after, means)
    rates = rate + 0.5 * (float(target @ target) + float(prior_mean @ precision @ prior_mean) - quadratic)
    rates = np.maximum(rates, 1e-12)
    freedom = _SHAPE + 0.5 * len(target)
    evidence = -0.5 * np.linalg.slogdet(after)[1] - freedom * np.log(rates)
    weights = np.exp(evidence - logsumexp(evidence))

    point = np.stack([np.ones_like(ends), ends], axis=1)
    spread = 1.0 + np.einsum("mp,mp->m", point, np.linalg.solve(after, point[..., None])[..., 0])
    drift = _DRIFT * math.log(end / last)
    scales = np.sqrt(rates / freedom * spread + drift**2)
    locations = np.einsum("mp,mp->m", point, means)
    return Forecast(weights, origin + scale * locations, scale * scales, 2.0 * freedom)


def chance_to_beat(curve: Sequence[EpochRecord], horizon: int, best: Sequence[EpochRecord], *, by_score: bool) -> float | None:
    """Give the probability that a curve ends better than the best trial's curve has come to.

    Parameters
    ----------
    curve
        So far.
    horizon
        Epochs planned.
    best
        The best trial's curve; its last judged value is what has to be beaten.
    by_score
        False: losses are compared. True: the objective is a score, so the curve must be hopeless by its loss and by its score; the
        larger of the two chances is given.

    Returns
    -------
    float or None
        None where too little was measured to say.
    """
    chances = []
    for name, sign in (("validation_loss", 1.0), ("validation_score", -1.0)) if by_score else (("validation_loss", 1.0),):
        measured = [(float(one.epoch), sign * float(getattr(one, name))) for one in curve if math.isfinite(getattr(one, name))]
        reached = [sign * float(getattr(one, name)) for one in best if math.isfinite(getattr(one, name))]
        found = forecast([epoch for epoch, _ in measured], [value for _, value in measured], horizon) if measured else None
        if found is None or not reached:
            return None
        chances.append(found.below(reached[-1]))
    return max(chances)


def hopeless(curve: Sequence[EpochRecord], horizon: int, rivals: Sequence[Sequence[EpochRecord]], *, by_score: bool) -> str:
    """Say why a trial is not worth going on with; empty where it is.

    Parameters
    ----------
    curve, horizon, by_score
        See `chance_to_beat`.
    rivals
        Curves of other trials of networks. Without any there is never a reason: the only network is never stopped.
    """
    worst: float | None = None
    for rival in rivals:
        # A rival that has not come further says nothing that successive halving does not say.
        if not rival or not curve or rival[-1].epoch < curve[-1].epoch or curve[-1].epoch >= horizon:
            continue
        chance = chance_to_beat(curve, horizon, rival, by_score=by_score)
        if chance is not None:
            worst = chance if worst is None else min(worst, chance)
    if worst is None or worst >= HOPELESS:
        return ""
    percent = "less than 1" if worst < 0.01 else f"{100 * worst:.0f}"
    return (
        f"stopped after {curve[-1].epoch} of {horizon} epochs: by its learning curve the chance to end better than the best is {percent} %"
    )
