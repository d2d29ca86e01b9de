"""What a stream is compared with: the training images' statistics, as a package keeps them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from oteo_core.evaluation.bootstrap import Floats, encode_groups

Flags = NDArray[np.bool_]
Steps = NDArray[np.int64]

GRAIN = 0.2
"""Figures are compared in steps of so many standard deviations: a figure that hardly varies at home moves measurably with nothing at all."""


_REACH = 200
"""Steps on either side of the centre that are told apart; what lies beyond is at the end."""


def in_steps(scaled: Floats) -> Steps:
    """Bring figures in standard deviations ``(n, C)`` to whole steps of `GRAIN`, numbered from 0."""
    return (np.clip(np.rint(scaled / GRAIN), -_REACH, _REACH) + _REACH).astype(np.int64)


def distribution(steps: Steps, weights: Floats | None = None) -> Floats:
    """Give the distribution function of each column at every step, ``(steps, C)``.

    Parameters
    ----------
    steps
        ``(n, C)`` of `in_steps`.
    weights
        ``(n,)``, sum 1; None: all alike.
    """
    count, columns = steps.shape
    size = 2 * _REACH + 1
    places = (steps + np.arange(columns) * size).ravel()
    shares = np.repeat(np.full(count, 1.0 / count) if weights is None else weights, columns)
    return np.asarray(np.bincount(places, shares, minlength=columns * size).reshape(columns, size).cumsum(axis=1).T)


class Summary(Protocol):
    """`oteo_core.packages.ReferenceStatistics`."""

    @property
    def quantiles(self) -> tuple[float, ...]:
        """Evenly spaced quantiles of the training images' distances."""

    @property
    def count(self) -> int:
        """Number of training images."""

    def distance(self, statistics: Floats) -> float:
        """Give an image's distance."""


@dataclass(frozen=True)
class Home:
    """The training domain.

    Parameters
    ----------
    columns
        Names of the C compared figures.
    values
        ``(N, C)``.
    weights
        ``(N,)``, sum 1: images of one group share a group's weight.
    size
        Independent images that the values are worth: groups.
    centre, spread
        ``(C,)``: mean and standard deviation, to say how far a figure moved.
    classes
        Names of the K classes; empty: nothing is known of them.
    truths
        ``(N, K)`` bool: classes of the same images; None: not known.
    answers
        ``(M, K)`` bool: classes that the model found on held-out images of the domain; None: not known.
    answer_size
        Independent images that the answers are worth.
    summary
        Where only quantiles of a distance are known: what gives an image's distance.
    slack
        What the figures' distribution functions may be off.
    """

    columns: tuple[str, ...]
    values: Floats
    weights: Floats
    size: float
    centre: Floats
    spread: Floats
    classes: tuple[str, ...] = ()
    truths: Flags | None = None
    answers: Flags | None = None
    answer_size: float = 0.0
    summary: Summary | None = None
    slack: float = 0.0

    @classmethod
    def of_sample(
        cls,
        columns: Sequence[str],
        values: Floats,
        groups: Sequence[str | int] | None = None,
        *,
        classes: Sequence[str] = (),
        truths: Flags | None = None,
        answers: Flags | None = None,
        answer_groups: Sequence[str | int] | None = None,
    ) -> Home:
        """Take images' statistics ``(N, C)``; a group counts as one, however many images it has (None: each is its own)."""
        numbers = encode_groups(groups, len(values))
        sizes = np.bincount(numbers)
        weights = 1.0 / sizes[numbers] / len(sizes)
        centre = weights @ values
        spread = np.sqrt(weights @ (values - centre) ** 2)
        answer_size = float(len(np.unique(encode_groups(answer_groups, len(answers))))) if answers is not None else 0.0
        # What never varies at home would make any other value infinitely far away.
        spread = np.maximum(spread, 0.01)
        return cls(tuple(columns), values, weights, float(len(sizes)), centre, spread, tuple(classes), truths, answers, answer_size)

    @classmethod
    def of_summary(cls, reference: Summary) -> Home:
        """Take a package without a sample: the distances' quantiles alone are compared."""
        values = np.asarray(reference.quantiles, dtype=np.float64)[:, None]
        count = len(values)
        spread = np.maximum(values.std(axis=0), 1e-6)
        return cls(
            ("distance",),
            values,
            np.full(count, 1.0 / count),
            float(reference.count),
            values.mean(axis=0),
            spread,
            summary=reference,
            slack=1.0 / (count - 1),
        )

    @cached_property
    def steps(self) -> Steps:
        """The values in steps, ``(N, C)``."""
        return in_steps((self.values - self.centre) / self.spread)

    @cached_property
    def distribution(self) -> Floats:
        """Their distribution functions; see `distribution`."""
        return distribution(self.steps, self.weights)

    def scaled(self, statistics: Floats) -> Floats:
        """Bring images' statistics ``(n, D)`` to what is compared, ``(n, C)``, in standard deviations from the centre."""
        figures = statistics
        if self.summary is not None:
            figures = np.array([[self.summary.distance(row)] for row in statistics]).reshape(len(statistics), 1)
        return (figures - self.centre) / self.spread

    def reweighted(self, shares: Floats) -> tuple[Floats, float] | None:
        """Give weights of the images for other class shares, and what they are worth then; None where classes are not known or are missing.

        Parameters
        ----------
        shares
            ``(K,)`` wanted; images of several classes have the product of the changes.
        """
        if self.truths is None:
            return None
        ours = self.weights @ self.truths
        if ((ours <= 0) & (shares > 0.02)).any():
            return None
        change = np.where(ours > 0, shares / np.maximum(ours, 1e-9), 1.0)
        weights = self.weights * np.prod(np.where(self.truths, change, 1.0), axis=1)
        if weights.sum() <= 0:
            return None
        weights = weights / weights.sum()
        # Kish's effective number, of the groups' share of it.
        return weights, self.size * float(1.0 / (weights**2).sum()) / float(1.0 / (self.weights**2).sum())
