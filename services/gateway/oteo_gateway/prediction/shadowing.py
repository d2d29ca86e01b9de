"""Shadow traffic: models that get a copy of what callers ask, after these have their answer, and are compared with it.

Nothing here delays or fails a caller: a copy that finds the queue full is left out and counted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Protocol

import structlog

from oteo_core.errors import OteoError
from oteo_gateway.prediction.agreement import Sums, agreement
from oteo_gateway.prediction.predictor import Answer, Query
from oteo_gateway.prediction.regions import RegionAnswer
from oteo_gateway.prediction.routing import RoutedModel, Routes

log = structlog.get_logger(__name__)

_AT_A_TIME = 2
_MOST_BYTES = 256 * 2**20

Key = tuple[str, str, str]
"""A deployment's uid, what served (`Serving.mark`), and the shadow's model id."""

Ask = Callable[[Query, Routes, RoutedModel, Executor], Awaitable[tuple[Answer, float]]]


class ShadowObserver(Protocol):
    """Takes the figures of comparisons."""

    def compared(self, deployment: str, model: str, agreement: float, ratio: float) -> None:
        """A shadow answered: how far it agreed, and its time over the answering model's."""

    def missed(self, deployment: str, model: str, reason: str) -> None:
        """A shadow did not answer, or was not asked."""


@dataclass(frozen=True, slots=True)
class _Copy:
    routes: Routes
    model: RoutedModel
    query: Query
    answer: Answer
    seconds: float

    @property
    def size(self) -> int:
        """Bytes that it keeps from being freed: the image's and the answer's."""
        answer, picture = self.answer, self.query.picture
        decoded = picture.pixels.nbytes if picture is not None else 0
        return (
            len(self.query.content) + decoded + (answer.labels.nbytes + len(answer.label_image) if isinstance(answer, RegionAnswer) else 0)
        )

    @property
    def key(self) -> Key:
        return self.routes.uid, self.routes.mark, self.model.plain.package.id


class Shadows:
    """Copies of the traffic for models that are only compared.

    Parameters
    ----------
    write
        Adds sums to what all gateways counted; blocks.
    observer
        Takes the figures.
    places
        Copies that wait at a time; one more is left out.
    period
        Seconds between two writings.
    """

    def __init__(self, write: Callable[[Mapping[Key, Sums]], None], observer: ShadowObserver, *, places: int, period: float) -> None:
        self._write = write
        self._observer = observer
        self._period = period
        self._queue: asyncio.Queue[_Copy] = asyncio.Queue(places)
        self._bytes = 0
        self._sums: dict[Key, Sums] = {}
        self._pool = ThreadPoolExecutor(_AT_A_TIME, thread_name_prefix="shadow")
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def waiting(self) -> int:
        """Copies that wait."""
        return self._queue.qsize()

    def offer(self, routes: Routes, query: Query, answer: Answer, seconds: float) -> None:
        """Have the shadows answer too, when there is time; see `oteo_gateway.prediction.predictor.ShadowTraffic`."""
        bare = replace(query, explain=False, draw=False, masks="none")
        for model in routes.shadows:
            copy = _Copy(routes, model, bare, answer, seconds)
            if not model.available:
                self._miss(copy, "AWAY")
            elif self._queue.full() or self._bytes + copy.size > _MOST_BYTES:
                self._miss(copy, "BEHIND")
            else:
                self._bytes += copy.size
                self._queue.put_nowait(copy)

    def start(self, ask: Ask) -> None:
        """Begin to work, inside the event loop; `ask` has a model answer."""
        self._tasks = [asyncio.create_task(self._work(ask), name=f"shadow-{number}") for number in range(_AT_A_TIME)]
        self._tasks.append(asyncio.create_task(self._keep_writing(), name="shadow-figures"))

    async def stop(self) -> None:
        """Stop; what was counted is written, what still waits is not asked."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._pool.shutdown(wait=False, cancel_futures=True)
        await self._flush()

    async def _work(self, ask: Ask) -> None:
        while True:
            copy = await self._queue.get()
            try:
                await self._compare(copy, ask)
            finally:
                self._bytes -= copy.size

    async def _compare(self, copy: _Copy, ask: Ask) -> None:
        try:
            answer, seconds = await ask(copy.query, copy.routes, copy.model, self._pool)
            value = await asyncio.get_running_loop().run_in_executor(self._pool, agreement, copy.answer, answer)
        except OteoError as error:
            self._miss(copy, error.reason or "FAILED")
        except Exception:
            log.exception("shadow_failed", deployment=copy.routes.name, model=copy.model.plain.package.id)
            self._miss(copy, "FAILED")
        else:
            ratio = seconds / max(copy.seconds, 1e-9)
            self._sums.setdefault(copy.key, Sums()).compared(value, ratio)
            self._observer.compared(copy.routes.name.removeprefix("deployments/"), copy.key[2], value, ratio)

    def _miss(self, copy: _Copy, reason: str) -> None:
        self._sums.setdefault(copy.key, Sums()).missed += 1
        self._observer.missed(copy.routes.name.removeprefix("deployments/"), copy.key[2], reason)

    async def _keep_writing(self) -> None:
        while True:
            await asyncio.sleep(self._period)
            await self._flush()

    async def _flush(self) -> None:
        if not self._sums:
            return
        sums, self._sums = self._sums, {}
        try:
            await asyncio.to_thread(self._write, sums)
        except Exception:  # figures must not end with a database that is away
            log.exception("shadow_figures_not_written")
            for key, value in sums.items():
                self._sums.setdefault(key, Sums()).add(value)
