"""How many requests run and how many wait: a bound on memory and on waiting under load, and a fair part of both for every caller.

A request that waits in vain costs as much as one that is answered, so one that the queue cannot bring forward within its deadline is refused at once. The
wait is foretold from what is known for certain, the number that wait before it, and from the mean time that requests held a place of late (Little's law:
with all places taken, one becomes free every mean / places seconds). Its own time is taken to be that mean and twice the mean deviation, weighted as TCP
does for its round trips (RFC 6298). One whose turn comes too late all the same is not begun.

Each caller has a queue of its own, and they have their turns one after the other (Nagle, "On Packet Switches with Infinite Storage", RFC 970). Where no more
may wait, one who has less waiting takes the room of the newest that waits for whoever has most (McKenney, "Stochastic Fairness Queueing", 1990): who floods
the queue is refused, and who does not is let in.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from oteo_core.errors import ResourceExhausted

_LEAST_RETRY = 0.05
_FIRST_MEAN = 0.1
_WEIGHT, _DEVIATION_WEIGHT = 0.125, 0.25
_DEVIATIONS = 2.0


@dataclass(eq=False, slots=True)
class _Waiter:
    """One who waits; `turn` is done when a place is its own, or fails when its room was given to another."""

    caller: str
    size: int
    turn: asyncio.Future[None]


class Admission:
    """A bounded number of places and a bounded queue before them. For one event loop.

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
        self._free = places
        self._places = places
        self._queue = queue
        self._queue_bytes = queue_bytes
        self._changed = changed
        # By caller; the first has the next turn.
        self._queues: dict[str, deque[_Waiter]] = {}
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
    def held(self) -> int:
        """Number of places that are taken."""
        return self._places - self._free

    @property
    def crowded(self) -> bool:
        """Whether one who comes now has to wait, or is refused."""
        return self._free <= 0

    def expected_wait(self, caller: str = "") -> float:
        """Give the seconds that a request of a caller that comes now will wait for its place."""
        if not self.crowded:
            return 0.0
        own = len(self._queues.get(caller, ()))
        # Others have no more turns before it than its own queue has.
        before = own + sum(min(len(queue), own + 1) for name, queue in self._queues.items() if name != caller)
        return self._mean_seconds * (before + 1) / self._places

    def check(self, caller: str, remaining: float | None, size: int = 0) -> None:
        """Refuse a request that `enter` would refuse; where nothing is known of it yet but who sends it, without its size.

        Raises
        ------
        ResourceExhausted
            As `enter`.
        """
        if self.crowded:
            if self._is_full(size) and self._longest(caller) is None:
                raise self._no_room(caller)
            self._check_time(remaining, self.expected_wait(caller))

    @asynccontextmanager
    async def enter(self, size: int = 0, remaining: Callable[[], float | None] = lambda: None, caller: str = "") -> AsyncIterator[float]:
        """Wait for a place and hold it; gives the seconds waited. One who is cancelled leaves the queue.

        Parameters
        ----------
        size
            Bytes that the request holds while it waits.
        remaining
            Gives the seconds that the caller still waits for its answer; None: for ever.
        caller
            Who asks: callers have their turns one after the other.

        Raises
        ------
        ResourceExhausted
            ``TOO_MANY_REQUESTS``, or ``NOT_IN_TIME`` where the answer would come after the deadline; with the seconds after which to try again.
        """
        waited = 0.0
        if self.crowded:
            self.check(caller, remaining(), size)
            self._make_room(size, caller)
            begin = time.perf_counter()
            await self._wait(caller, size)
            waited = time.perf_counter() - begin
        else:
            self._free -= 1
        try:
            if waited:
                self._check_time(remaining(), 0.0)
            admitted = time.perf_counter()
            try:
                yield waited
            finally:
                self._learn(time.perf_counter() - admitted)
        finally:
            self._pass_on()

    async def _wait(self, caller: str, size: int) -> None:
        waiter = _Waiter(caller, size, asyncio.get_running_loop().create_future())
        self._queues.setdefault(caller, deque()).append(waiter)
        self._count(1, size)
        try:
            await waiter.turn
        except asyncio.CancelledError:
            if not waiter.turn.done() or waiter.turn.cancelled():
                self._leave(waiter)
            elif waiter.turn.exception() is None:
                # It was given a place in the moment in which it went.
                self._pass_on()
            raise

    def _leave(self, waiter: _Waiter) -> None:
        """Take one out of its queue; nothing is to be done where a turn came, or room was made, between its cancelling and its noticing."""
        queue = self._queues.get(waiter.caller, deque())
        if waiter not in queue:
            return
        queue.remove(waiter)
        if not queue:
            del self._queues[waiter.caller]
        self._count(-1, -waiter.size)

    def _pass_on(self) -> None:
        """Give a place that became free to whose turn it is."""
        while self._queues:
            caller = next(iter(self._queues))
            queue = self._queues.pop(caller)
            waiter = queue.popleft()
            if queue:
                # Behind all others.
                self._queues[caller] = queue
            self._count(-1, -waiter.size)
            if not waiter.turn.done():
                waiter.turn.set_result(None)
                return
        self._free += 1

    def _learn(self, seconds: float) -> None:
        difference = seconds - self._mean_seconds
        self._deviation += _DEVIATION_WEIGHT * (abs(difference) - self._deviation)
        self._mean_seconds += _WEIGHT * difference

    def _count(self, requests: int, size: int) -> None:
        self._waiting += requests
        self._waiting_bytes += size
        self._changed(self._waiting)

    def _is_full(self, size: int) -> bool:
        return self._waiting >= self._queue or (self._waiting > 0 and self._waiting_bytes + size > self._queue_bytes)

    def _longest(self, caller: str) -> str | None:
        """Give who has so many more waiting than a caller that one of them makes room; None: nobody has."""
        if not self._queues:
            return None
        name = max(self._queues, key=lambda name: len(self._queues[name]))
        return name if len(self._queues[name]) > len(self._queues.get(caller, ())) + 1 else None

    def _make_room(self, size: int, caller: str) -> None:
        while self._is_full(size):
            name = self._longest(caller)
            if name is None:
                raise self._no_room(caller)
            out = self._queues[name][-1]
            self._leave(out)
            if not out.turn.done():
                out.turn.set_exception(self._no_room(name))

    def _no_room(self, caller: str) -> ResourceExhausted:
        return ResourceExhausted(
            f"{self._places} predictions run and {self._waiting} wait; try again shortly.",
            reason="TOO_MANY_REQUESTS",
            retry_after=max(_LEAST_RETRY, self.expected_wait(caller)),
        )

    def _check_time(self, left: float | None, wait: float) -> None:
        needed = wait + self._mean_seconds + _DEVIATIONS * self._deviation
        if left is not None and needed > left:
            raise ResourceExhausted(
                f"{self._waiting} predictions wait; this one would take about {needed:.2f} s, and the caller waits {left:.2f} s.",
                reason="NOT_IN_TIME",
                retry_after=max(_LEAST_RETRY, needed - left),
            )
