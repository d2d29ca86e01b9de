"""What a handler may know of the call that it answers."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from oteo_core.access import NOBODY, Identity
from oteo_core.errors import Cancelled, DeadlineExceeded


class Flag:
    """Is set once. A `threading.Event` for which nobody waits, at a tenth of its price: every call has one."""

    __slots__ = ("_on",)

    def __init__(self) -> None:
        self._on = False

    def set(self) -> None:
        """Set it."""
        self._on = True

    def is_set(self) -> bool:
        """Tell whether it is set."""
        return self._on


@dataclass(slots=True)
class CallContext:
    """One call.

    Attributes
    ----------
    method
        Full method, such as ``"/oteo.automl.v1.AutoMLService/GetModel"``.
    request_id
        From the caller's ``x-request-id`` or made here; it goes into every log line and on to services called.
    caller
        Who calls: the identity's name, which is the same as ``identity.name`` while a call is answered.
    identity
        Who calls, with kind and roles.
    deadline
        ``time.monotonic()`` at which the caller stops waiting; None: never.
    cancelled
        Set when the caller has gone or its deadline has passed; handlers that block look at it through `check`.
    settle
        Has the server's hook take notice of how the call ends, before it is answered: for a handler that ends it by ``context.abort`` itself. Takes the
        code's name and the reason. None where no hook is set.
    notes
        The hook's own.
    """

    method: str = ""
    request_id: str = ""
    caller: str = ""
    identity: Identity = NOBODY
    deadline: float | None = None
    cancelled: Flag = field(default_factory=Flag)
    settle: Callable[[str, str], Awaitable[None]] | None = None
    notes: dict[str, Any] = field(default_factory=dict)

    def remaining(self) -> float | None:
        """Give the seconds until the deadline, at least 0; None where there is none."""
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())

    def check(self) -> None:
        """Stop work that nobody waits for: raise `DeadlineExceeded` or `Cancelled`."""
        if self.deadline is not None and time.monotonic() >= self.deadline:
            raise DeadlineExceeded("the call's deadline has passed")
        if self.cancelled.is_set():
            raise Cancelled("the caller has gone")


_CURRENT: ContextVar[CallContext | None] = ContextVar("oteo_call", default=None)


def current() -> CallContext:
    """Give the call that is being answered; an empty one outside of any."""
    return _CURRENT.get() or CallContext()


def enter(call: CallContext) -> None:
    """Make a call the current one, in this task and in what it starts."""
    _CURRENT.set(call)
