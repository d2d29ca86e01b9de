"""Which model, or which mixture of models, is handed over: held-out loss against milliseconds at inference.

Mixtures are found by greedy selection with replacement (Caruana, Niculescu-Mizil, Crew and Ksikes, "Ensemble selection from libraries of
models", ICML 2004), in bags of models and of samples against overfitting; what a mixture gains is judged on the samples that its bag did
not draw. A mixture must be clearly better than the best model alone: it costs the time of its parts.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from oteo_automl.search.scoring import sample_losses
from oteo_core.evaluation.label_calibration import level

Loss = Callable[[NDArray[np.float64], NDArray[np.int64]], float]
"""From log-probabilities ``(N, K)`` and the rows ``(N,)`` that they are of to a loss, smaller is better."""

SharesLoss = Callable[[NDArray[np.float64], NDArray[np.int64]], float]
"""From the shares of all members ``(M,)``, which sum to one, and the rows that are looked at to the loss of that mixture on these."""

ENOUGH = 16
"""Held-out samples below which weights cannot be told apart from luck."""

MARGIN = 0.01
"""Share by which a mixture must be better than the best model alone, on samples that its weights were not found on."""

DOUBLING = 0.01
"""Share by which a model must be better to be worth twice the time at inference."""

UNFELT = 0.002
"""Seconds at inference below which nobody notices more or less."""

LEARNT = 0.8
"""Share of what a model has learnt that another must have learnt for their plain mean."""

MOST_PARTS = 4
_BAGS = 16
_PICKS = 12
_SMALLEST = 0.06
_ONE_SIDED = 1.645


@dataclass(frozen=True, slots=True)
class Member:
    """A model that may be chosen.

    Parameters
    ----------
    name
        Its trial's id.
    answers
        ``(N, K)`` log-probabilities of the held-out samples, calibrated by the model's own temperature.
    latency
        Seconds for one image.
    """

    name: str
    answers: NDArray[np.float64]
    latency: float


@dataclass(frozen=True, slots=True)
class Choice:
    """A model or mixture.

    Parameters
    ----------
    parts
        Places among the members, ascending.
    weights
        One each; they sum to one.
    loss
        On all held-out samples.
    latency
        Seconds for one image: the sum of the parts'.
    gain
        Share by which the mixture was better than the best of its bag's models on samples that were not drawn; 0 for a single model.
    plain
        True: the plain mean of a network and of models on fixed features; `gain` is then against one kind alone, on what all have held out.
    """

    parts: tuple[int, ...]
    weights: tuple[float, ...]
    loss: float
    latency: float
    gain: float = 0.0
    plain: bool = False


def price(loss: float, latency: float, fastest: float) -> float:
    """Give a loss with the time at inference in it: `DOUBLING` more for each doubling of the time.

    Parameters
    ----------
    loss
        Smaller is better; may be negative (a score turned round).
    latency, fastest
        Seconds of the model and of the quickest there is.
    """
    return loss + toll(latency, fastest) * abs(loss)


def toll(latency: float, fastest: float) -> float:
    """Give the share of a loss that more time at inference is worth; see `price`."""
    return DOUBLING * math.log2(max(latency, UNFELT) / max(min(fastest, latency), UNFELT))


def front(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Say of each (loss, latency) whether it is on the front: nothing else is at least as good in both and better in one."""
    return [
        math.isfinite(loss)
        and not any(
            (other <= loss and quicker <= latency) and (other < loss or quicker < latency)
            for other, quicker in points
            if math.isfinite(other)
        )
        for loss, latency in points
    ]


def mix(members: Sequence[Member], parts: Sequence[int], weights: Sequence[float]) -> NDArray[np.float64]:
    """Give the weighted mean of log-probabilities ``(N, K)``, as the exported graph does."""
    total = np.zeros_like(members[parts[0]].answers)
    for part, weight in zip(parts, weights, strict=True):
        total += weight * members[part].answers
    return total


def select(
    members: Sequence[Member],
    loss: Loss,
    groups: Sequence[int] | NDArray[np.int64],
    *,
    seed: int,
    limit: float = math.inf,
    deadline: float = math.inf,
) -> Choice | None:
    """Find a mixture by bagged greedy selection.

    Parameters
    ----------
    members
        At least two.
    loss
        Of answers.
    groups
        ``(N,)``: samples of a group are drawn together.
    seed
        Of the bags.
    limit
        Seconds for one image that a mixture may take.
    deadline
        Seconds since 1970; fewer bags are made where it is near.

    Returns
    -------
    Choice or None
        None where no mixture fits or none has two parts.
    """

    def of_shares(shares: NDArray[np.float64], rows: NDArray[np.int64]) -> float:
        parts = np.flatnonzero(shares).tolist()
        total = shares[parts[0]] * members[parts[0]].answers[rows]
        for part in parts[1:]:
            total = total + shares[part] * members[part].answers[rows]
        return loss(total, rows)

    latencies = [member.latency for member in members]
    return select_shares(of_shares, latencies, len(members[0].answers), groups, seed=seed, limit=limit, deadline=deadline)


class OutOfTime(Exception):
    """Raised by a loss that takes long, where its time is up: the bag is given up."""


def select_shares(
    loss: SharesLoss,
    latencies: Sequence[float],
    count: int,
    groups: Sequence[int] | NDArray[np.int64],
    *,
    seed: int,
    limit: float = math.inf,
    deadline: float = math.inf,
    bags: int = _BAGS,
    picks: int = _PICKS,
) -> Choice | None:
    """Find a mixture of anything that can be mixed by shares; see `select`.

    Parameters
    ----------
    loss
        Of a mixture; may raise `OutOfTime`.
    latencies
        Seconds for one image, of each member.
    count
        Number of samples.
    groups, seed, limit, deadline
        As of `select`.
    bags, picks
        Draws of models and samples, and models that each of them adds at most.
    """
    numbers = np.unique(np.asarray(groups), return_inverse=True)[1]
    units = int(numbers.max()) + 1
    everything = np.arange(count)
    alone = [loss(row, everything) for row in np.eye(len(latencies))]
    usable = [place for place in np.argsort(alone, kind="stable").tolist() if math.isfinite(alone[place]) and latencies[place] <= limit]
    if len(usable) < 2 or count < ENOUGH:
        return None
    votes = np.zeros(len(latencies))
    gains: list[float] = []
    for bag in range(bags):
        if time.time() > deadline and bag:
            break
        rng = np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, 1, bag]))
        drawn = np.isin(numbers, rng.choice(units, size=max(1, round(0.63 * units)), replace=False))
        inside, outside = np.flatnonzero(drawn), np.flatnonzero(~drawn)
        if len(inside) < ENOUGH // 2:
            inside, outside = everything, everything[:0]
        # The best of all is in every bag; of the others a draw.
        others = [place for place in usable[1:] if rng.random() < 0.6]
        try:
            found = _greedy(loss, latencies, [usable[0], *others], inside, limit, picks)
            if len(outside) >= ENOUGH // 2:
                # Against what would have been chosen alone on the same samples: it was not picked with luck on these either.
                rival = min(usable, key=lambda place: loss(np.eye(len(latencies))[place], inside))
                base = loss(np.eye(len(latencies))[rival], outside)
                gains.append((base - loss(found, outside)) / max(abs(base), 1e-9))
        except OutOfTime:
            break
        votes += found
    return _settle(loss, latencies, votes, everything, limit, float(np.mean(gains)) if gains else 0.0)


def _greedy(
    loss: SharesLoss, latencies: Sequence[float], places: Sequence[int], rows: NDArray[np.int64], limit: float, picks: int
) -> NDArray[np.float64]:
    """Add, again and again, the model that helps most; give each model's share."""
    counts = np.zeros(len(latencies))
    best = math.inf
    for turn in range(picks):
        picked = set(np.flatnonzero(counts).tolist())
        step: tuple[float, int] | None = None
        for place in places:
            if place not in picked and (len(picked) >= MOST_PARTS or sum(latencies[one] for one in picked) + latencies[place] > limit):
                continue
            tried = counts.copy()
            tried[place] += 1
            value = loss(tried / (turn + 1), rows)
            if step is None or value < step[0]:
                step = (value, place)
        if step is None or (turn and step[0] >= best - 1e-9):
            break
        best = step[0]
        counts[step[1]] += 1
    shares: NDArray[np.float64] = counts / max(1.0, float(counts.sum()))
    return shares


def _settle(
    loss: SharesLoss, latencies: Sequence[float], votes: NDArray[np.float64], rows: NDArray[np.int64], limit: float, gain: float
) -> Choice | None:
    """Make one mixture of all bags': the parts with most votes that fit, without those that hardly count."""
    shares = votes / max(votes.sum(), 1e-9)
    chosen: list[int] = []
    spent = 0.0
    for place in np.argsort(-shares, kind="stable").tolist():
        if shares[place] >= _SMALLEST and len(chosen) < MOST_PARTS and spent + latencies[place] <= limit:
            chosen.append(place)
            spent += latencies[place]
    if len(chosen) < 2:
        return None
    parts = tuple(sorted(chosen))
    weights = shares[list(parts)] / shares[list(parts)].sum()
    rounded = np.round(weights, 3)
    rounded[-1] = 1.0 - rounded[:-1].sum()
    whole = np.zeros(len(latencies))
    whole[list(parts)] = rounded
    try:
        value = loss(whole, rows)
    except OutOfTime:
        return None
    return Choice(parts, tuple(float(one) for one in rounded), value, sum(latencies[part] for part in parts), gain)


def halves(
    chosen: NDArray[np.float64],
    other: NDArray[np.float64],
    labels: NDArray[np.int64],
    groups: Sequence[int] | NDArray[np.int64],
    *,
    cost: float = 0.0,
) -> float | None:
    """Say what the plain mean of two models' answers is worth that err apart, as a network and classifiers on fixed features do.

    Where both have learnt about as much their mean is better than either as a rule (docs/training.md has a case against it), while a few dozen held-out
    samples cannot find weights, nor tell the better of the two: plain means predict better than fitted ones (Clemen, "Combining forecasts", International Journal of Forecasting 5, 1989; Smith and Wallis, Oxford
    Bulletin of Economics and Statistics 71, 2009). So the samples may speak against it, and need not speak for it.

    Parameters
    ----------
    chosen, other
        ``(N, K)`` answers to the same held-out samples, as `mix` gives them: of what would be taken without the other, and of the other.
    labels
        ``(N,)``, or ``(N, K)`` of 0 and 1.
    groups
        ``(N,)``: samples of a group do not tell anything apart from each other.
    cost
        Share of the log loss that the longer time at inference is worth.

    Returns
    -------
    float or None
        Share of the log loss that the mean gains, below 0 where it loses some; None where it surely gains less than `cost` on `chosen` alone (one-sided,
        95 %), or the other has learnt less than four fifths of what `chosen` has: log loss below that of the classes' shares.
    """
    alone, apart, both = (sample_losses(level(one, labels)[0], labels) for one in (chosen, other, 0.5 * (chosen + other)))
    shares = np.clip(
        labels.mean(axis=0) if labels.ndim == 2 else np.bincount(labels, minlength=chosen.shape[1]) / len(labels), 1e-6, 1 - 1e-6
    )
    answer = np.log(shares) - np.log1p(-shares) if labels.ndim == 2 else np.log(shares)
    nothing = float(sample_losses(np.broadcast_to(answer, chosen.shape), labels).mean())
    if nothing - apart.mean() < LEARNT * (nothing - alone.mean()):
        return None
    difference = both - alone
    numbers = np.unique(np.asarray(groups), return_inverse=True)[1]
    count = int(numbers.max()) + 1
    apart_from_mean = np.bincount(numbers, weights=difference - difference.mean(), minlength=count)
    error = math.sqrt(count / max(1, count - 1) * float((apart_from_mean**2).sum())) / len(labels)
    if difference.mean() - _ONE_SIDED * error > -cost * alone.mean():
        return None
    return float(-difference.mean() / max(alone.mean(), 1e-9))


def choose(members: Sequence[Member], mixture: Choice | None, losses: Sequence[float], *, limit: float = math.inf) -> Choice:
    """Choose between single models and a mixture.

    Parameters
    ----------
    members
        At least one.
    mixture
        What `select` found.
    losses
        Of each member on its own.
    limit
        Seconds for one image. Where no model keeps it the quickest is chosen.

    Returns
    -------
    Choice
        The single model of the lowest `price` among those within the limit; the mixture where it is clearly better than that: by `MARGIN`
        on all samples and on those that its weights were not found on, and by its price.
    """
    fastest = min(member.latency for member in members)
    within = [place for place in range(len(members)) if members[place].latency <= limit and math.isfinite(losses[place])]
    if not within:
        place = min(range(len(members)), key=lambda one: (members[one].latency, losses[one]))
        return Choice((place,), (1.0,), losses[place], members[place].latency)
    place = min(within, key=lambda one: (price(losses[one], members[one].latency, fastest), losses[one]))
    single = Choice((place,), (1.0,), losses[place], members[place].latency)
    if mixture is None or mixture.latency > limit:
        return single
    needed = MARGIN * max(abs(single.loss), 1e-9)
    clearly = mixture.loss < single.loss - needed and mixture.gain > MARGIN
    cheaper = price(mixture.loss, mixture.latency, fastest) < price(single.loss, single.latency, fastest)
    return mixture if clearly and cheaper else single


def measure_latency(module: torch.nn.Module, image: NDArray[np.generic], *, runs: int = 7, device: str = "cpu") -> float:
    """Measure the time for one image on this machine, seconds.

    Parameters
    ----------
    module
        In evaluation mode, on `device`; takes ``(1, H, W, C)``.
    image
        ``(H, W, C)``, prepared.
    runs
        Timed runs after two that are not; their median is given.
    device
        Of PyTorch.
    """
    batch = torch.from_numpy(np.array(image)[None]).to(device)
    gpu = torch.device(device).type == "cuda"
    times: list[float] = []
    with torch.inference_mode():
        for turn in range(runs + 2):
            if gpu:
                torch.cuda.synchronize()
            began = time.perf_counter()
            module(batch)
            if gpu:
                torch.cuda.synchronize()
            if turn >= 2:
                times.append(time.perf_counter() - began)
    return float(np.median(times))
