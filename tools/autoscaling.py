"""What the chart's autoscaler would do with a load: Triton's replicas, the gateways' bounded queue, and Kubernetes' rules, second by second.

A fluid model in small steps. Callers arrive by Poisson; the gateways hold so many requests at a time and let so many wait, and refuse the rest; each
ready replica answers at its measured rate. The number of replicas follows ``autoscaling/v2`` as Kubernetes documents it: wanted replicas are the
metric over its target, rounded up; nothing changes within a tenth of the target; a rise is the least that was wanted within its window, a fall the most
within its own; by the chart's policies replicas at most double in 30 s and go one by one, a minute apart. KEDA alone goes from and to zero.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from chart_models.models import TritonScaling
from numpy.typing import NDArray

STEP = 0.25
"""Seconds of a step."""

SYNC_SECONDS = 15.0
_TOLERANCE = 0.1
DOUBLING_SECONDS = 30.0
REMOVAL_SECONDS = 60.0


@dataclass(frozen=True)
class Site:
    """What a site has.

    Parameters
    ----------
    per_replica
        Requests a second that one replica answers at full load, measured.
    running
        Requests that one replica works on at a time when it is full: its rate times the time that it takes for one alone, or the batch that it
        fills.
    start_seconds
        From the wish for a replica to its first answer: scheduling, image, loading, probe.
    places, queue
        Requests that all gateways together run, and let wait (``predict_concurrency`` and ``predict_queue`` times gateways).
    """

    per_replica: float
    running: float = 8.0
    start_seconds: float = 60.0
    places: int = 128
    queue: int = 512


@dataclass
class Day:
    """What came of a load, a value a step.

    Attributes
    ----------
    arrived, answered, refused
        Requests.
    inside
        Requests that wait or run at the end of the step.
    wanted, ready
        Replicas asked for, and those that answer.
    waits
        Seconds of waiting of the requests that were answered, one for each step in which some arrived, and their numbers beside.
    """

    arrived: NDArray[np.float64]
    answered: NDArray[np.float64]
    refused: NDArray[np.float64]
    inside: NDArray[np.float64]
    wanted: NDArray[np.int64]
    ready: NDArray[np.int64]
    waits: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    weights: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))

    @property
    def replica_hours(self) -> float:
        """Hours for which replicas were held, starting ones too."""
        return float(self.wanted.sum()) * STEP / 3600.0

    def wait_quantile(self, share: float) -> float:
        """Give the time in seconds within which so many (0 to 1) of the answers came; 0 where there was none."""
        if not self.weights.sum():
            return 0.0
        order = np.argsort(self.waits)
        reached = np.cumsum(self.weights[order]) / self.weights.sum()
        return float(self.waits[order][min(len(order) - 1, int(np.searchsorted(reached, share)))])


class Autoscaler:
    """The number of replicas that Kubernetes would want.

    Parameters
    ----------
    settings
        ``triton.autoscaling`` of the chart's values.
    gpu
        Whether Triton has GPUs; without them KEDA heeds the CPU too.
    """

    def __init__(self, settings: TritonScaling, *, gpu: bool = True) -> None:
        self._settings = settings
        self._gpu = gpu
        self.replicas = settings.minReplicas
        self._asked: deque[tuple[float, int]] = deque()
        self._changed: deque[tuple[float, int]] = deque()
        self._next_sync = 0.0
        self._next_poll = 0.0
        self._active_at = float("-inf")

    def look(self, now: float, *, inside: float, waiting: float, needed: float, busy: float, queue_seconds: float) -> int:
        """Give the replicas wanted now.

        Parameters
        ----------
        now
            Seconds.
        inside
            Requests that wait or run in Triton, the mean of the last minute or those that wait now.
        waiting
            Requests that wait at the gateways or find no replica.
        needed
            Deployments that wait to be served, trainings that run, and requests of callers that were answered lately; the gateway's probes are none.
        busy
            Share of the replicas' time that is used, 0 to 1.
        queue_seconds
            Mean time in Triton's queue.
        """
        settings = self._settings
        if settings.mode == "none":
            return self.replicas
        if settings.mode == "keda" and settings.minReplicas == 0 and now >= self._next_poll:
            self._next_poll = now + settings.pollSeconds
            if needed > 0 or waiting > settings.wakeOnWaiting:
                self._active_at = now
                self.replicas = max(1, self.replicas)
            elif now - self._active_at >= settings.scaleDownSeconds:
                self.replicas = 0
        if self.replicas == 0 or now < self._next_sync:
            return self.replicas
        self._next_sync = now + SYNC_SECONDS
        self._asked.append((now, self._wish(inside, busy, queue_seconds)))
        while self._asked and self._asked[0][0] < now - max(settings.scaleUpSeconds, settings.scaleDownSeconds):
            self._asked.popleft()
        self._settle(now)
        return self.replicas

    def _wish(self, inside: float, busy: float, queue_seconds: float) -> int:
        settings, current = self._settings, self.replicas
        if settings.mode == "keda":
            ratio = inside / (settings.concurrencyPerReplica * current)
            if not self._gpu:
                ratio = max(ratio, busy * 100.0 / settings.cpuPercent)
        elif settings.mode == "hpa-queue":
            ratio = queue_seconds * 1000.0 / settings.queueMilliseconds
        else:
            ratio = busy * 100.0 / settings.cpuPercent
        wish = current if abs(ratio - 1.0) <= _TOLERANCE else math.ceil(round(ratio * current, 6))
        return min(max(wish, settings.minReplicas, 1), settings.maxReplicas)

    def _settle(self, now: float) -> None:
        """Apply the windows and the policies to what was wanted."""
        settings = self._settings
        up = min(wish for at, wish in self._asked if at >= now - settings.scaleUpSeconds)
        down = max(wish for at, wish in self._asked if at >= now - settings.scaleDownSeconds)
        target = up if up > self.replicas else min(down, self.replicas)
        while self._changed and self._changed[0][0] <= now - REMOVAL_SECONDS:
            self._changed.popleft()
        if target > self.replicas:
            before = self.replicas - sum(change for at, change in self._changed if change > 0 and at > now - DOUBLING_SECONDS)
            target = min(target, max(2 * before, self.replicas))
        elif target < self.replicas:
            gone = -sum(change for _, change in self._changed if change < 0)
            target = max(target, self.replicas - max(0, 1 - gone))
        if target != self.replicas:
            self._changed.append((now, target - self.replicas))
            self.replicas = target


def simulate(
    rates: Sequence[float], seconds: float, settings: TritonScaling, site: Site, *, seed: int = 0, replicas: int = 1, gpu: bool = True
) -> Day:
    """Run a load against the autoscaler.

    Parameters
    ----------
    rates
        Requests a second, evenly spread over the time and joined by straight lines.
    seconds
        Length of the time.
    settings
        ``triton.autoscaling`` of the chart's values.
    site
        What answers.
    seed
        Of the arrivals.
    replicas
        With mode ``none``: ``triton.replicas``.
    gpu
        See `Autoscaler`.
    """
    rng = np.random.default_rng(seed)
    steps = math.ceil(seconds / STEP)
    mean = np.interp(np.linspace(0.0, 1.0, steps), np.linspace(0.0, 1.0, len(rates)), np.asarray(rates, dtype=np.float64))
    arrived = rng.poisson(mean * STEP).astype(np.float64)
    scaler = Autoscaler(settings, gpu=gpu)
    if settings.mode == "none":
        scaler.replicas = replicas
    answered, refused, inside = np.zeros(steps), np.zeros(steps), np.zeros(steps)
    wanted, ready = np.zeros(steps, dtype=np.int64), np.zeros(steps, dtype=np.int64)
    # What runs at the beginning runs since before it.
    births = [float("-inf")] * scaler.replicas
    load = 0.0
    # What the last minute held and the last two minutes turned away and gave, as the chart's queries see it.
    minute: deque[float] = deque([0.0], maxlen=round(60.0 / STEP))
    turned_away: deque[float] = deque([0.0], maxlen=round(120.0 / STEP))
    given: deque[float] = deque([0.0], maxlen=round(120.0 / STEP))
    for step in range(steps):
        now = step * STEP
        there = sum(birth <= now for birth in births)
        capacity = there * site.per_replica * STEP
        room = site.places + site.queue - load if there else 0.0
        taken = min(arrived[step], max(0.0, room))
        refused[step] = arrived[step] - taken
        load += taken
        done = min(load, capacity)
        load -= done
        held = min(load, float(site.places))
        busy = done / capacity if capacity else 0.0
        # What is still there after the step waits; what was done in it ran for a part of it.
        pending = min(load, max(0.0, float(site.places) - busy * there * site.running))
        minute.append(pending + busy * there * site.running)
        turned_away.append(arrived[step] if not there else 0.0)
        given.append(done)
        target = scaler.look(
            now,
            inside=max(sum(minute) / len(minute), pending),
            waiting=load - held + sum(turned_away),
            needed=sum(given),
            busy=busy,
            queue_seconds=pending / (there * site.per_replica) if there else 0.0,
        )
        births += [now + site.start_seconds] * (target - len(births))
        # The newest go first, as a ReplicaSet does with pods that are not ready.
        births = sorted(births)[:target]
        answered[step], inside[step], wanted[step], ready[step] = done, load, target, there
    day = Day(arrived, answered, refused, inside, wanted, ready)
    day.waits, day.weights = _waits(arrived - refused, answered)
    return day


def _waits(entered: NDArray[np.float64], answered: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give the time in the system of those who entered in each step, first come first served; those never answered are left out."""
    came, went = np.cumsum(entered), np.cumsum(answered)
    some = np.flatnonzero((entered > 0) & (came <= went[-1] + 1e-9))
    ends = np.searchsorted(went, came[some] - 1e-9)
    return (ends - some) * STEP, entered[some]


def replicas_for(rate: float, per_replica: float, utilisation: float = 0.7) -> int:
    """Give the replicas that a steady load needs.

    Parameters
    ----------
    rate
        Requests a second.
    per_replica
        Requests a second that one answers at full load.
    utilisation
        Share of its time that a replica may be busy, 0 to 1: above .7 to .8 waiting grows quickly (Kleinrock, "Queueing Systems", 1975).
    """
    return max(1, math.ceil(rate / (per_replica * utilisation) - 1e-9))
