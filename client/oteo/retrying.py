"""Which calls are made again, when, and how often (AIP-194): those that were UNAVAILABLE, within their deadline, after the pause that the service asks for."""

from __future__ import annotations

import random
import uuid
from dataclasses import dataclass
from typing import Any

from oteo.errors import OteoApiError


@dataclass(frozen=True)
class RetryPolicy:
    """Exponential pauses with jitter.

    Attributes
    ----------
    attempts
        Calls in all.
    first, longest
        Least and greatest bound of a pause, seconds; it doubles from call to call, and the pause is drawn below it.
    """

    attempts: int = 5
    first: float = 0.2
    longest: float = 3.0

    def pause(self, error: OteoApiError, attempt: int, left: float | None) -> float | None:
        """Give the seconds to wait before the next call; None: the error stands.

        Parameters
        ----------
        error
            What the call ended with.
        attempt
            Calls so far, from 1.
        left
            Seconds of the caller's deadline that are left; None: it has none.
        """
        if error.code != "UNAVAILABLE" or attempt >= self.attempts:
            return None
        # From half the bound up: never at once, and not all callers together.
        drawn = min(self.longest, self.first * 2 ** (attempt - 1)) * random.uniform(0.5, 1.0)
        seconds = max(drawn, error.retry_after or 0.0)
        return None if left is not None and seconds >= left else seconds


POLICY = RetryPolicy()


def made_repeatable(request: Any) -> Any:
    """Give a request that may be sent twice: a changing one gets a ``request_id``, by which the service knows it again (AIP-155)."""
    if "request_id" in request.DESCRIPTOR.fields_by_name and not request.request_id:
        request.request_id = str(uuid.uuid4())
    return request
