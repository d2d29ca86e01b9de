"""How much of a day's quota callers have used: counted here, written to the database in batches, read back with what other gateways counted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

from oteo_core import telemetry
from oteo_core.errors import OteoError, ResourceExhausted

_LOG = telemetry.logger("oteo.quotas")
_KEPT_DAYS = 90
_QUIET_SECONDS = 3600.0


class Store(Protocol):
    """Where use is kept; methods block."""

    def add(self, day: str, used: Mapping[str, int], asked: Iterable[str] = ()) -> dict[str, int]:
        """Add use, and give what callers have used on a day."""

    def forget(self, before: str) -> None:
        """Delete what was used before a day."""


@dataclass(slots=True)
class _Use:
    day: str
    stored: int = 0
    pending: int = 0
    seen: float = 0.0
    """When the caller was last there, seconds since 1970."""

    @property
    def total(self) -> int:
        return self.stored + self.pending


class Quotas:
    """The images that callers sent today (UTC).

    A gateway knows of another's images after `period`, so a quota may be passed by what is sent within it. A gateway that is killed forgets the images
    of its last period. A database that is away stops no prediction: images are counted here until it is back.

    Parameters
    ----------
    store
        The database's table.
    period
        Seconds between two writes.
    now
        The time, UTC.
    """

    def __init__(self, store: Store, period: float, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._store = store
        self._period = period
        self._now = now
        self._use: dict[str, _Use] = {}
        self._loading: dict[str, asyncio.Task[None]] = {}
        self._unwritten: dict[str, dict[str, int]] = {}
        """Of days that are over, by day and caller."""
        self._swept = ""

    async def used(self, name: str) -> int:
        """Give how many images a caller sent today."""
        return (await self._current(name)).total

    async def check(self, name: str, quota: int) -> None:
        """Refuse a caller whose quota is used up: ``QUOTA_EXCEEDED``, to be tried again when the day is over."""
        use = await self._current(name)
        if use.total < quota:
            return
        now = self._now()
        midnight = (now + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
        raise ResourceExhausted(
            f"today's quota of {quota} images is used up; it begins anew at midnight UTC",
            reason="QUOTA_EXCEEDED",
            metadata={"quota": "images_per_day", "limit": str(quota)},
            retry_after=(midnight - now).total_seconds(),
        )

    def add(self, name: str, images: int) -> None:
        """Count images; `check` came before."""
        self._use.setdefault(name, _Use(self._day())).pending += images

    async def run(self) -> None:
        """Write and read, again and again, until cancelled; `flush` writes the last."""
        while True:
            await asyncio.sleep(self._period)
            await self.flush()

    async def flush(self) -> None:
        """Write what was counted since the last time, and read what there is in all."""
        day = self._day()
        for name, use in list(self._use.items()):
            if use.day != day:
                if use.pending:
                    self._unwritten.setdefault(use.day, {})[name] = use.pending
                self._use[name] = _Use(day, seen=use.seen)
        for old in list(self._unwritten):
            if await self._write(old, self._unwritten[old], ()) is not None:
                del self._unwritten[old]
        quiet = self._now().timestamp() - _QUIET_SECONDS
        for name in [name for name, use in self._use.items() if use.seen < quiet and not use.pending]:
            del self._use[name]
        if not self._use:
            return
        taken = {name: use.pending for name, use in self._use.items() if use.pending}
        totals = await self._write(day, taken, list(self._use))
        if totals is None:
            return
        for name, total in totals.items():
            found = self._use.get(name)
            if found is not None and found.day == day:
                found.stored, found.pending = total, found.pending - taken.get(name, 0)
        if self._swept != day:
            self._swept = day
            oldest = (self._now() - timedelta(days=_KEPT_DAYS)).date().isoformat()
            await asyncio.to_thread(self._store.forget, oldest)

    async def _write(self, day: str, used: Mapping[str, int], asked: Iterable[str]) -> dict[str, int] | None:
        try:
            return await asyncio.to_thread(self._store.add, day, used, asked)
        except OteoError as error:
            _LOG.warning("the use of quotas is not written; it is kept until the database answers", error=error.message)
            return None

    async def _current(self, name: str) -> _Use:
        use = self._use.get(name)
        if use is None or use.day != self._day():
            # Whoever comes meanwhile waits for the same answer.
            task = self._loading.get(name)
            if task is None:
                task = self._loading[name] = asyncio.create_task(self._load(name))
            await asyncio.shield(task)
            use = self._use[name]
        use.seen = self._now().timestamp()
        return use

    async def _load(self, name: str) -> None:
        day = self._day()
        try:
            found = await self._write(day, {}, [name]) or {}
        finally:
            del self._loading[name]
        old = self._use.get(name)
        if old is not None and old.day != day and old.pending:
            self._unwritten.setdefault(old.day, {})[name] = old.pending
        pending = old.pending if old is not None and old.day == day else 0
        self._use[name] = _Use(day, stored=found.get(name, 0), pending=pending, seen=self._now().timestamp())

    def _day(self) -> str:
        return self._now().date().isoformat()
