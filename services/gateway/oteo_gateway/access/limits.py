"""How much one caller may ask: calls a minute and calls at a time, kept in this process, which allows its part of what its gateway does."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field

from oteo_core.access import Role
from oteo_core.errors import ResourceExhausted

_MOST_CALLERS = 10_000


class Limits(BaseModel):
    """What one caller may ask; 0 everywhere: no limit."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    requests_per_minute: int = Field(default=0, ge=0, description="Calls, and messages of streams that carry images, in each gateway.")
    concurrent_calls: int = Field(default=0, ge=0, description="Calls at a time, in each gateway.")
    images_per_day: int = Field(
        default=0, ge=0, description="Images that are predicted, translated or augmented a day (UTC), in all gateways."
    )
    running_operations: int = Field(default=0, ge=0, description="Operations that have not ended, of all services.")


NONE = Limits()

DEFAULTS: dict[Role, Limits] = {
    Role.VIEWER: Limits(requests_per_minute=300, concurrent_calls=16),
    Role.CLINICIAN: Limits(requests_per_minute=1200, concurrent_calls=32),
    Role.TRAINER: Limits(requests_per_minute=1200, concurrent_calls=32, running_operations=8),
    Role.OPERATOR: Limits(requests_per_minute=3000, concurrent_calls=64, running_operations=32),
    Role.ADMIN: NONE,
}
"""What a site has that sets none: enough for people and for a viewer of images, not for a loop that has run away."""


def widest(limits: Iterable[Limits]) -> Limits:
    """Give the most that any of several roles allows, each limit for itself; no limit is more than any."""
    given = list(limits)
    if not given:
        return NONE

    def most(name: str) -> int:
        values = [int(getattr(limit, name)) for limit in given]
        return 0 if 0 in values else max(values)

    return Limits(**{name: most(name) for name in Limits.model_fields})


def limits_for(name: str, roles: Iterable[str], by_role: Mapping[Role, Limits], by_name: Mapping[str, Limits]) -> Limits:
    """Give a caller's limits: its own where the site set some, else the widest of its roles'."""
    own = by_name.get(name)
    return own if own is not None else widest(by_role.get(Role(role), DEFAULTS[Role(role)]) for role in roles)


@dataclass(slots=True)
class _Caller:
    tokens: float
    """Calls that may come at once."""
    time: float
    """When that was counted, by the clock."""
    calls: int = 0
    """Calls that are being answered."""


class Gauge:
    """Counts the calls of every caller in this process; one event loop, so no lock.

    The rate is a token bucket that holds a minute's calls, so that a caller who was quiet may send them at once. Where several processes share a gateway's port
    each allows an equal part, at least one call, so that all of them together allow no more than one alone would.

    Parameters
    ----------
    clock
        Gives seconds that never fall.
    processes
        Of the gateway.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, processes: int = 1) -> None:
        self._clock = clock
        self._processes = processes
        self._callers: OrderedDict[str, _Caller] = OrderedDict()

    def take(self, name: str, limits: Limits) -> None:
        """Count one call.

        Raises
        ------
        ResourceExhausted
            ``RATE_LIMITED`` or ``TOO_MANY_CALLS``, with the time after which to try again.
        """
        self.check_calls(name, limits)
        wait = self.wait(name, limits)
        if wait > 0:
            raise ResourceExhausted(
                f"more than {limits.requests_per_minute} calls a minute{self._parted()}; try again later",
                reason="RATE_LIMITED",
                metadata={"limit": str(limits.requests_per_minute)},
                retry_after=wait,
            )

    def wait(self, name: str, limits: Limits) -> float:
        """Count one call and give 0, or count none and give the seconds after which it may come."""
        if not limits.requests_per_minute:
            return 0.0
        caller, now = self._caller(name, limits), self._clock()
        rate = limits.requests_per_minute / self._processes / 60.0
        caller.tokens = min(self._most_tokens(limits), caller.tokens + (now - caller.time) * rate)
        caller.time = now
        if caller.tokens < 1.0:
            return (1.0 - caller.tokens) / rate
        caller.tokens -= 1.0
        return 0.0

    def check_calls(self, name: str, limits: Limits) -> None:
        """Refuse one more call at a time than is allowed: ``TOO_MANY_CALLS``."""
        if limits.concurrent_calls and self._caller(name, limits).calls >= max(1, limits.concurrent_calls // self._processes):
            raise ResourceExhausted(
                f"{limits.concurrent_calls} calls{self._parted()} are being answered already; wait for one to end",
                reason="TOO_MANY_CALLS",
                metadata={"limit": str(limits.concurrent_calls)},
                retry_after=0.5,
            )

    def begin(self, name: str, limits: Limits) -> None:
        """Note that a call is being answered; raises as `check_calls`."""
        self.check_calls(name, limits)
        self._caller(name, limits).calls += 1

    def end(self, name: str) -> None:
        """Note that it was."""
        caller = self._callers.get(name)
        if caller is not None:
            caller.calls -= 1

    def calls(self, name: str) -> int:
        """Give how many of a caller's calls are being answered."""
        caller = self._callers.get(name)
        return caller.calls if caller is not None else 0

    def _caller(self, name: str, limits: Limits) -> _Caller:
        caller = self._callers.get(name)
        if caller is None:
            caller = self._callers[name] = _Caller(self._most_tokens(limits), self._clock())
            self._forget()
        else:
            self._callers.move_to_end(name)
        return caller

    def _most_tokens(self, limits: Limits) -> float:
        """Give the calls that may come here at once."""
        return max(1.0, limits.requests_per_minute / self._processes)

    def _parted(self) -> str:
        """Say that others of the gateway's processes have their parts."""
        return f", an equal part of them in each of {self._processes} processes," if self._processes > 1 else ""

    def _forget(self) -> None:
        """Forget those who have been quiet longest, never one whose calls are being answered."""
        if len(self._callers) <= _MOST_CALLERS:
            return
        for name in [name for name, caller in self._callers.items() if not caller.calls][: _MOST_CALLERS // 10]:
            del self._callers[name]
