"""One look at a stream: whether its latest images still come from the training domain, in looks and in class shares.

Every figure of the images is tested by Kolmogorov and Smirnov's test and every class's share by Fisher's, over windows of several lengths: a
great change shows in few images, a small one in many. P-values are corrected by Bonferroni's method for all of these tests together; what looks
that are repeated cost is `oteo_core.shift.alarm`'s.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, kolmogorov

from oteo_core.evaluation.bootstrap import Floats
from oteo_core.shift.home import Flags, Home, Steps, distribution, in_steps
from oteo_core.shift.independence import effective_number
from oteo_core.shift.power import detectable_distance

WINDOWS = (32, 128, 512)
"""Numbers of latest images that are tested; below the first nothing is."""

NONE, LOOKS, SHARES, BOTH = "none", "looks", "shares", "both"
POWER = 0.9
LOOKED_AT = 2 * WINDOWS[-1]
"""So many latest images a look makes use of: the longest window, and those before it."""
_BLOCK, _LEAST_BLOCKS = 128, 3
_LEFT_OVER = 0.001
"""Level of "something is left after the shares are made equal": what is not surely left is put down to the shares."""


@dataclass(frozen=True, slots=True)
class Look:
    """What one look found.

    Parameters
    ----------
    images
        Different images in the longest window.
    independent
        As many independent ones are they worth.
    p_value
        Corrected for all tests of the look.
    effect
        Largest distance of distribution functions, or difference of a share, of the test with the least p-value; 0 to 1.
    detectable
        Distance that the longest window shows nine times in ten, at the look's level.
    kind
        `NONE`; `LOOKS`: the images look different; `SHARES`: classes come in other shares, images of a class look as they did; `BOTH`: the
        two, which the model's answers alone do not tell apart.
    where
        The figure or class of the least p-value.
    moved
        Its mean: in standard deviations of the training images (a figure), or as a difference of shares (a class).
    of_class
        Whether `where` is a class.
    """

    images: int
    independent: float
    p_value: float
    effect: float
    detectable: float
    kind: str
    where: str
    moved: float
    of_class: bool = False


def distances(home: Floats, window: Floats) -> Floats:
    """Give Kolmogorov and Smirnov's distance of each column ``(C,)`` between two tables of `oteo_core.shift.home.distribution`."""
    return np.asarray(np.abs(home - window).max(axis=0))


def distance_p(apart: Floats, home: float, window: float) -> Floats:
    """Give p-values of distances by Smirnov's limit, for numbers of independent images."""
    return np.asarray(kolmogorov(np.maximum(apart, 0.0) * np.sqrt(home * window / (home + window))))


def share_p(home: Floats, home_size: float, window: Floats, window_size: float) -> Floats:
    """Give p-values (Fisher's, two-sided by doubling) of shares ``(K,)`` for numbers of independent images."""
    total_home, total = round(home_size), max(1, round(window_size))
    ours, theirs = np.rint(home * total_home), np.rint(window * total)
    # The window's count given both margins is hypergeometric; SciPy's own takes milliseconds for what is a short sum.
    counts = np.arange(total + 1)[None]
    both = (ours + theirs)[:, None]
    others = total_home + total - both
    possible = (counts <= both) & (total - counts <= others)
    logs = (
        _log_choose(both, counts) + _log_choose(others, total - counts) - _log_choose(np.array(float(total_home + total)), np.array(total))
    )
    chances = np.where(possible, np.exp(np.where(possible, logs, 0.0)), 0.0)
    below = (chances * (counts <= theirs[:, None])).sum(axis=1)
    above = (chances * (counts >= theirs[:, None])).sum(axis=1)
    return np.asarray(np.minimum(1.0, 2.0 * np.minimum(below, above)))


def _log_choose(of: Floats, take: NDArray[np.int64]) -> Floats:
    rest = np.maximum(of - take, 0.0)
    return np.asarray(gammaln(of + 1.0) - gammaln(take + 1.0) - gammaln(rest + 1.0))


def look(home: Home, statistics: Floats, answers: Flags | None, level: float) -> Look | None:
    """Test the latest images.

    Parameters
    ----------
    home
        The training domain.
    statistics
        ``(n, D)`` as `oteo_core.packages.reference.image_statistics` gives them, in order of arrival, no image twice; of `LOOKED_AT` latest.
    answers
        ``(n, K)`` bool: classes that the model found; None where they are not compared.
    level
        Chance of a false alarm that this look may have.

    Returns
    -------
    Look or None
        None where there are fewer images than the shortest window.
    """
    if len(statistics) < WINDOWS[0]:
        return None
    scaled = home.scaled(statistics)
    figures = in_steps(scaled)
    compared = answers is not None and home.answers is not None and answers.shape[1] == home.answers.shape[1]
    windows = [size for size in WINDOWS if size <= len(figures)]
    # A window that is not full yet is looked at too, or nothing between 33 and 127 images would be.
    if len(figures) < WINDOWS[-1] and len(figures) > windows[-1]:
        windows.append(len(figures))
    tests = len(windows) * (len(home.columns) + (home.answers.shape[1] if compared and home.answers is not None else 0))
    best = _Found()
    worth = 0.0
    for size in windows:
        worth = _worth(scaled, size)
        apart = distances(home.distribution, distribution(figures[-size:])) - home.slack
        best.figure(distance_p(apart, home.size, worth) * tests, apart, scaled[-size:].mean(axis=0))
        if compared and answers is not None and home.answers is not None:
            recent = answers[-size:].astype(np.float64)
            ours, theirs = home.answers.mean(axis=0), recent.mean(axis=0)
            alone = min(worth, _worth(answers.astype(np.float64), size))
            best.share(share_p(ours, home.answer_size, theirs, alone) * tests, theirs - ours)
    longest = figures[-windows[-1] :]
    kind = _kind(home, longest, answers, worth, best, level)
    by_class = best.share_p < best.figure_p
    return Look(
        images=len(longest),
        independent=worth,
        p_value=min(1.0, best.figure_p, best.share_p),
        effect=float(max(0.0, abs(best.share_moved) if by_class else best.figure_effect)),
        detectable=detectable_distance(home.size, worth, level / tests, POWER),
        kind=kind,
        where=(home.classes[best.share_at] if by_class and home.classes else home.columns[best.figure_at]),
        moved=best.share_moved if by_class else best.figure_moved,
        of_class=by_class,
    )


def _worth(rows: Floats, size: int) -> float:
    """Give the independent images that the latest `size` rows are worth: by themselves, and by how alike the rows of all blocks were.

    A short window says little of how images come in runs. Many blocks say more, and their median does not mind the one that a shift lies in, which
    would look like a run.
    """
    worth = effective_number(rows[-size:])
    ends = range(len(rows), _BLOCK - 1, -_BLOCK)
    if len(ends) < _LEAST_BLOCKS:
        return worth
    shares = [effective_number(rows[end - _BLOCK : end]) / _BLOCK for end in ends]
    return min(worth, size * float(np.median(shares)))


class _Found:
    """The least p-values so far."""

    def __init__(self) -> None:
        self.figure_p = self.share_p = 2.0
        self.figure_at = self.share_at = 0
        self.figure_effect = self.figure_moved = self.share_moved = 0.0

    def figure(self, p_values: Floats, apart: Floats, moved: Floats) -> None:
        # Where several p-values are 0 to the last digit, the greater distance is said.
        at = int(np.lexsort((-apart, p_values))[0])
        if (p_values[at], -apart[at]) < (self.figure_p, -self.figure_effect):
            self.figure_p, self.figure_at = float(p_values[at]), at
            self.figure_effect, self.figure_moved = float(apart[at]), float(moved[at])

    def share(self, p_values: Floats, moved: Floats) -> None:
        at = int(np.lexsort((-np.abs(moved), p_values))[0])
        if (p_values[at], -abs(moved[at])) < (self.share_p, -abs(self.share_moved)):
            self.share_p, self.share_at, self.share_moved = float(p_values[at]), at, float(moved[at])


def _kind(home: Home, figures: Steps, answers: Flags | None, worth: float, best: _Found, level: float) -> str:
    looks, shares = best.figure_p <= level, best.share_p <= level
    if not looks or answers is None:
        return (SHARES if shares else NONE) if not looks else LOOKS
    # Other shares alone move every figure of the images: what is left once home has the shares that the model answers?
    reweighted = home.reweighted(answers[-len(figures) :].mean(axis=0))
    if reweighted is not None:
        weights, size = reweighted
        left = distance_p(distances(distribution(home.steps, weights), distribution(figures)) - home.slack, size, worth) * len(home.columns)
        if float(left.min()) > _LEFT_OVER and shares:
            return SHARES
        return LOOKS
    return BOTH if shares else LOOKS
