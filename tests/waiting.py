"""How long tests wait for what must come about: the machines that run them are shared, and some are several times slower than others."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

SLOWER = float(os.environ.get("OTEO_TEST_SLOWER", "1"))
"""How many times slower this machine is than one that a bar was set for."""

PATIENCE = 6.0 * SLOWER
"""What a wait may take, in units of what it takes on an idle machine; reached only where something is broken."""


def patient(seconds: float) -> float:
    """Give how long to wait for what takes an idle machine at most so many seconds."""
    return PATIENCE * seconds


def wait_for(what: Callable[[], T], seconds: float = 20.0, *, said: Callable[[], object] | None = None, pause: float = 0.05) -> T:
    """Give the first true answer.

    Parameters
    ----------
    what
        Asked again and again.
    seconds
        Within which an idle machine gives it; `PATIENCE` times as long is waited.
    said
        What to show if it does not come, say a log; empty: the last answer alone.
    pause
        Seconds between two questions.

    Raises
    ------
    AssertionError
        If it does not come.
    """
    until = time.monotonic() + patient(seconds)
    while not (answer := what()):
        if time.monotonic() > until:
            raise AssertionError(f"still {answer!r} after {patient(seconds):.0f} s" + (f": {said()}" if said else ""))
        time.sleep(pause)
    return answer


def wait_done(ask: Callable[[], Any], seconds: float = 20.0, *, said: Callable[[], object] | None = None, pause: float = 0.05) -> Any:
    """Give an operation once it is done; `ask` gives it as it is, the others are `wait_for`'s."""
    return wait_for(lambda: found if (found := ask()).done else None, seconds, said=said, pause=pause)
