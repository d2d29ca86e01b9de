"""What a service may do around every call that its server answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from oteo_core.context import CallContext

Waiting = Callable[[], Awaitable[None]]


class CallHook(Protocol):
    """Is told of every call before it is carried out, and of its end before it is answered."""

    async def before(self, call: CallContext, request: Any, context: Any) -> None:
        """Take notice of a call whose caller is known; an `OteoError` raised here is its answer, and nothing is carried out.

        Parameters
        ----------
        call
            The call.
        request
            The request: a message, bytes that are forwarded, or None where requests are a stream.
        context
            gRPC's.
        """

    def after(self, call: CallContext, code: str, reason: str, response: Any, context: Any) -> Waiting | None:
        """Take notice of how a call ends.

        Parameters
        ----------
        call
            The call; its caller may not have become known.
        code
            Name of the canonical code.
        reason
            UPPER_SNAKE reason of an error; empty without one.
        response
            The one answer: a message or bytes; None where answers are a stream, or there is none.
        context
            gRPC's.

        Returns
        -------
        callable or None
            What has to be waited for before the call is answered. An `OteoError` raised here, or by it, is the answer of a call that had none.
        """


class Ending:
    """Tells a hook of a call's end, once, whoever comes first.

    Parameters
    ----------
    hook
        None: nobody is told.
    call
        The call.
    context
        gRPC's.
    """

    def __init__(self, hook: CallHook | None, call: CallContext, context: Any) -> None:
        self._hook = hook
        self._call = call
        self._context = context
        self._told = False
        if hook is not None:
            call.settle = self.settle

    async def begin(self, request: Any) -> None:
        """Tell of the call's beginning."""
        if self._hook is not None:
            await self._hook.before(self._call, request, self._context)

    def tell(self, code: str, reason: str, response: Any = None) -> Waiting | None:
        """Tell of the end, without waiting: for a call that nobody waits for any more."""
        if self._hook is None or self._told:
            return None
        self._told = True
        return self._hook.after(self._call, code, reason, response, self._context)

    async def settle(self, code: str, reason: str, response: Any = None) -> None:
        """Tell of the end and wait for what has to be waited for."""
        waiting = self.tell(code, reason, response)
        if waiting is not None:
            await waiting()
