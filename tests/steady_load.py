"""Callers of a gateway who call on and on, and write down how each call ended."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import grpc
from waiting import patient, wait_for

Ask = Callable[[grpc.aio.Channel, int], Awaitable[bool]]
"""Makes one call, the so-many-th; gives whether its answer is right, raises `grpc.aio.AioRpcError` where it got a status instead."""


@dataclass(frozen=True)
class Outcome:
    """How one call ended: OK with a right or a wrong answer, or a status."""

    begin: float
    end: float
    code: str
    right: bool


class SteadyLoad:
    """So many callers, each with a connection of its own, in a thread beside the test; ``with``.

    Parameters
    ----------
    address
        The gateway's.
    ask
        One call.
    callers
        How many call at a time.
    pause
        Seconds between an answer and the next call.
    """

    def __init__(self, address: str, ask: Ask, *, callers: int = 4, pause: float = 0.01) -> None:
        self._address = address
        self._ask = ask
        self._callers = callers
        self._pause = pause
        self._numbers = itertools.count()
        self._stop = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=lambda: self._loop.run_until_complete(self._run()), daemon=True)
        self.outcomes: list[Outcome] = []
        self.begun = 0
        self.broken: list[BaseException] = []

    def __enter__(self) -> SteadyLoad:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(patient(20))
        assert not self._thread.is_alive(), "a call has not ended"
        self._loop.close()

    def since(self, moment: float) -> list[Outcome]:
        """Give the calls that began at a moment of `time.monotonic` or later."""
        return [outcome for outcome in list(self.outcomes) if outcome.begin >= moment]

    def codes(self) -> Counter[str]:
        """Count how calls ended."""
        return Counter(outcome.code for outcome in list(self.outcomes))

    def settled(self, back: float) -> float:
        """Give the seconds from a moment to the beginning of the last call that was not answered; 0 where none was after it."""
        return max([0.0, *(outcome.begin - back for outcome in list(self.outcomes) if outcome.code != "OK")])

    def wait_good(self, count: int = 60, seconds: float = 60.0) -> None:
        """Wait until the last so many calls were all answered."""
        begin = len(self.outcomes)

        def good() -> bool:
            found = self.outcomes[begin:]
            bad = [number for number, outcome in enumerate(found) if outcome.code != "OK"]
            return len(found) - (bad[-1] + 1 if bad else 0) >= count

        wait_for(good, seconds, said=lambda: Counter(outcome.code for outcome in self.outcomes[begin:][-count:]))

    async def _run(self) -> None:
        await asyncio.gather(*(self._call() for _ in range(self._callers)))

    async def _call(self) -> None:
        options = [
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.max_reconnect_backoff_ms", 500),
            ("grpc.initial_reconnect_backoff_ms", 100),
        ]
        async with grpc.aio.insecure_channel(self._address, options) as channel:
            while not self._stop.is_set():
                self.begun += 1
                begin = time.monotonic()
                code, right = "OK", True
                try:
                    right = await self._ask(channel, next(self._numbers))
                except grpc.aio.AioRpcError as error:
                    code = error.code().name
                except Exception as error:  # noqa: BLE001 - reported by the test's own thread
                    self.broken.append(error)
                    return
                self.outcomes.append(Outcome(begin, time.monotonic(), code, right))
                await asyncio.sleep(self._pause)

    def check(self) -> None:
        """Assert what holds whatever was killed: every call ended, with a right answer or a status."""
        assert not self.broken, self.broken
        assert self.begun == len(self.outcomes), "a call was lost"
        wrong = [outcome for outcome in self.outcomes if outcome.code == "OK" and not outcome.right]
        assert not wrong, f"{len(wrong)} wrong answers"
