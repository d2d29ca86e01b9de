"""What some commands need of this machine's own stack, which a client alone does not bring."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from oteo.errors import OteoApiError


@contextmanager
def local_parts(missing: str) -> Iterator[None]:
    """Import from `oteo_local` inside; `missing` says what is not installed and what to do instead.

    Raises
    ------
    OteoApiError
        FAILED_PRECONDITION, reason STACK_NOT_INSTALLED.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "oteo_local":
            raise
        raise OteoApiError("FAILED_PRECONDITION", missing, reason="STACK_NOT_INSTALLED") from None
