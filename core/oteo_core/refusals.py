"""Refusals by the thousand, told of in few words: whoever floods a server must not fill its disk with what is written of it, nor take its time."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

_TELL_SECONDS = 1.0
_MOST_KINDS = 100


class RefusalLimit:
    """Which refusals are written one by one. The others are counted.

    Parameters
    ----------
    burst
        So many at once.
    rate
        So many a second, for long.
    clock
        Gives seconds.
    """

    def __init__(self, burst: float = 200.0, rate: float = 5.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._burst = self._left = burst
        self._rate = rate
        self._clock = clock
        self._at = clock()
        self._counted = 0

    def allows(self) -> bool:
        """Take a place for a refusal; where there is none, it is counted."""
        now = self._clock()
        self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left < 1.0:
            self._counted += 1
            return False
        self._left -= 1.0
        return True

    def count(self, refusals: int) -> None:
        """Count refusals that were not written."""
        self._counted += refusals

    def counted(self) -> int:
        """Give how many were counted since this was last asked."""
        found, self._counted = self._counted, 0
        return found


class RefusalLines:
    """A log's lines of refused calls: one for each while they are few, and sums every second beside them where they are many. For one event loop.

    Parameters
    ----------
    log
        A structured logger.
    limit
        Which are written one by one.
    """

    def __init__(self, log: Any, limit: RefusalLimit | None = None) -> None:
        self._log = log
        self._limit = limit or RefusalLimit()
        self._sums: Counter[tuple[str, str, str]] = Counter()

    def allow(self, method: str, code: str, reason: str) -> bool:
        """Say whether a refusal gets a line of its own; else it is in the next sum."""
        if self._limit.allows():
            return True
        if not self._sums:
            asyncio.get_running_loop().call_later(_TELL_SECONDS, self._tell)
        # A method's name may be the caller's invention.
        key = (method, code, reason) if len(self._sums) < _MOST_KINDS else ("", code, reason)
        self._sums[key] += 1
        return False

    def _tell(self) -> None:
        sums, self._sums = self._sums, Counter()
        for (method, code, reason), count in sums.items():
            self._log.warning("calls refused", method=method, code=code, reason=reason, count=count)
