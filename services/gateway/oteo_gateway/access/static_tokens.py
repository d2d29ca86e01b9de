"""Static tokens of a file, taken anew when the file changes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from oteo_core import telemetry
from oteo_core.access import Identity
from oteo_core.errors import OteoError, Unauthenticated
from oteo_core.tokens import TokenFile, TokenRecord, digest_of

_LOG = telemetry.logger("oteo.access")
_LOOK_SECONDS = 1.0


class StaticTokens:
    """The tokens of a file.

    A file that cannot be read any more leaves what was read before; one that is gone takes all its tokens along.

    Parameters
    ----------
    path
        The file; need not be there.
    now
        Gives seconds since 1970.

    Raises
    ------
    FailedPrecondition
        ``TOKENS_UNREADABLE``: the file is there and is none.
    """

    def __init__(self, path: Path, now: Callable[[], float] = time.time) -> None:
        self._file = TokenFile(path)
        self._now = now
        self._looked = 0.0
        self._stamp = self._stamp_of()
        self._records = self._by_digest()

    def find(self, token: str) -> Identity | None:
        """Give who bears a token; None where it is none of these.

        Raises
        ------
        Unauthenticated
            ``TOKEN_EXPIRED``.
        """
        self._look()
        # Found by its hash: how long that takes says nothing of a token.
        record = self._records.get(digest_of(token))
        if record is None:
            return None
        if not record.valid(self._now()):
            raise Unauthenticated("this token has expired; ask for a new one", reason="TOKEN_EXPIRED")
        expires = record.expires.timestamp() if record.expires is not None else None
        return Identity(f"token:{record.name}", "token", frozenset(record.roles), expires)

    def _look(self) -> None:
        now = time.monotonic()
        if now - self._looked < _LOOK_SECONDS:
            return
        self._looked = now
        stamp = self._stamp_of()
        if stamp == self._stamp:
            return
        try:
            self._records = self._by_digest()
        except OteoError as error:
            _LOG.error("the file of tokens changed and cannot be read; those of before go on", error=error.message)
        else:
            _LOG.info("the file of tokens was read anew", count=len(self._records))
        self._stamp = stamp

    def _stamp_of(self) -> tuple[int, int, int]:
        try:
            found = os.stat(self._file.path)
        except OSError:
            return (0, 0, 0)
        return (found.st_mtime_ns, found.st_size, found.st_ino)

    def _by_digest(self) -> dict[str, TokenRecord]:
        return {record.sha256: record for record in self._file.read()}
