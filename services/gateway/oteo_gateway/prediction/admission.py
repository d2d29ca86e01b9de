"""How many requests run and how many wait: a bound on memory and on waiting under load."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from oteo_core.errors import ResourceExhausted


class Admission:
    """A bounded number of places and a bounded queue before them.

    Parameters
    ----------
    places
        Requests that run at a time.
    queue
        Requests that wait at a time; one more is refused.
    """

    def __init__(self, places: int, queue: int) -> None:
        self._semaphore = asyncio.Semaphore(places)
        self._places = places
        self._queue = queue
        self._waiting = 0
        # Running mean of a request's time, from which a refused caller learns when to come again.
        self._mean_seconds = 0.1

    @property
    def waiting(self) -> int:
        """Number of requests that wait."""
        return self._waiting

    @asynccontextmanager
    async def enter(self) -> AsyncIterator[float]:
        """Wait for a place and hold it; gives the seconds waited.

        Raises
        ------
        ResourceExhausted
            ``TOO_MANY_REQUESTS``, with the seconds after which to try again.
        """
        if self._semaphore.locked() and self._waiting >= self._queue:
            raise ResourceExhausted(
                f"{self._places} predictions run and {self._waiting} wait; try again shortly.",
                reason="TOO_MANY_REQUESTS",
                retry_after=max(0.05, self._mean_seconds * self._waiting / self._places),
            )
        begin = time.perf_counter()
        self._waiting += 1
        try:
            await self._semaphore.acquire()
        finally:
            self._waiting -= 1
        admitted = time.perf_counter()
        try:
            yield admitted - begin
        finally:
            self._semaphore.release()
            self._mean_seconds += 0.05 * (time.perf_counter() - admitted - self._mean_seconds)
