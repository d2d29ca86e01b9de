"""How many requests run and how many wait: a bound on memory and on waiting under load.

A request that waits in vain costs as much as one that is answered, so one that the queue cannot bring forward within its deadline is refused at once. The
wait is foretold from what is known for certain, the number that wait before it, and from the mean time that requests held a place of late (Little's law:
with all places taken, one becomes free every mean / places seconds). Its own time is taken to be that mean and twice the mean deviation, weighted as TCP
does for its round trips (RFC 6298). One whose turn comes too late all the same is not begun.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from oteo_core.errors import ResourceExhausted

_LEAST_RETRY = 0.05
_FIRST_MEAN = 0.1
_WEIGHT, _DEVIATION_WEIGHT = 0.125, 0.25
_DEVIATIONS = 2.0


class Admission:
    """A bounded number of places and a bounded queue before them.

    Parameters
    ----------
    places
        Requests that run at a time.
    queue
        Requests that wait at a time; one more is refused.
    queue_bytes
        Bytes of images that wait at a time; one image always may.
    changed
        Told the number of requests that wait whenever it changes.
    """

    def __init__(
        self, places: int, queue: int, *, queue_bytes: int = 1 << 62, changed: Callable[[int], None] = lambda waiting: None
    ) -> None:
        self._semaphore = asyncio.Semaphore(places)
        self._places = places
        self._queue = queue
        self._queue_bytes = queue_bytes
        self._changed = changed
        self._waiting = 0
        self._waiting_bytes = 0
        # Running mean of the time that a request holds its place.
        self._mean_seconds = _FIRST_MEAN
        self._deviation = 0.0

    @property
    def waiting(self) -> int:
        """Number of requests that wait."""
        return self._waiting

    @property
    def expected_wait(self) -> float:
        """Seconds that a request that comes now will wait for its place."""
        return self._mean_seconds * (self._waiting + 1) / self._places if self.crowded else 0.0

    @property
    def crowded(self) -> bool:
        """Whether one who comes now has to wait, or is refused."""
        return self._semaphore.locked()

    @asynccontextmanager
    async def enter(self, size: int = 0, remaining: Callable[[], float | None] = lambda: None) -> AsyncIterator[float]:
        """Wait for a place and hold it; gives the seconds waited. A caller that is cancelled leaves the queue.

        Parameters
        ----------
        size
            Bytes that the request holds while it waits.
        remaining
            Gives the seconds that the caller still waits for its answer; None: for ever.

        Raises
        ------
        ResourceExhausted
            ``TOO_MANY_REQUESTS``, or ``NOT_IN_TIME`` where the answer would come after the deadline; with the seconds after which to try again.
        """
        crowded = self.crowded
        if crowded:
            self._check_room(size)
            self._check_time(remaining(), self.expected_wait)
        begin = time.perf_counter()
        self._count(1, size)
        try:
            await self._semaphore.acquire()
        finally:
            self._count(-1, -size)
        try:
            if crowded:
                self._check_time(remaining(), 0.0)
            admitted = time.perf_counter()
            try:
                yield admitted - begin
            finally:
                self._learn(time.perf_counter() - admitted)
        finally:
            self._semaphore.release()

    def _learn(self, seconds: float) -> None:
        difference = seconds - self._mean_seconds
        self._deviation += _DEVIATION_WEIGHT * (abs(difference) - self._deviation)
        self._mean_seconds += _WEIGHT * difference

    def _count(self, requests: int, size: int) -> None:
        self._waiting += requests
        self._waiting_bytes += size
        self._changed(self._waiting)

    def _check_room(self, size: int) -> None:
        full = self._waiting >= self._queue or (self._waiting and self._waiting_bytes + size > self._queue_bytes)
        if full:
            raise ResourceExhausted(
                f"{self._places} predictions run and {self._waiting} wait; try again shortly.",
                reason="TOO_MANY_REQUESTS",
                retry_after=max(_LEAST_RETRY, self.expected_wait),
            )

    def _check_time(self, left: float | None, wait: float) -> None:
        needed = wait + self._mean_seconds + _DEVIATIONS * self._deviation
        if left is not None and needed > left:
            raise ResourceExhausted(
                f"{self._waiting} predictions wait; this one would take about {needed:.2f} s, and the caller waits {left:.2f} s.",
                reason="NOT_IN_TIME",
                retry_after=max(_LEAST_RETRY, needed - left),
            )
