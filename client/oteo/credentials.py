"""The token that goes with every call: given, in a file, or told by a program that renews it."""

from __future__ import annotations

import base64
import binascii
import json
import os
import shlex
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from oteo.errors import OteoApiError

TokenSource = Callable[[], str]
"""Gives the token to send now."""

_COMMAND_SECONDS = 120.0
_KEPT_SECONDS = 300.0
_MARGIN_SECONDS = 30.0


def end_of(token: str) -> float | None:
    """Give when a signed token ends, seconds since 1970, as it says itself; None where it does not say. Nothing is checked: the gateway does that."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        said = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        return float(said["exp"])
    except (binascii.Error, ValueError, TypeError, KeyError, OverflowError):
        return None


class FileToken:
    """A token in a file, read again when the file changes.

    Parameters
    ----------
    path
        The file; space around the token does not count.
    """

    def __init__(self, path: Path) -> None:
        self._path = path.expanduser()
        self._stamp: tuple[int, int, int] | None = None
        self._token = ""

    def __call__(self) -> str:
        """Give the token.

        Raises
        ------
        OteoApiError
            UNAUTHENTICATED, reason TOKEN_FILE_UNREADABLE.
        """
        try:
            found = os.stat(self._path)
            stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
            if stamp != self._stamp:
                self._token, self._stamp = self._path.read_text().strip(), stamp
        except (OSError, UnicodeDecodeError) as error:
            raise OteoApiError(
                "UNAUTHENTICATED", f"the token's file {self._path} cannot be read: {error}", reason="TOKEN_FILE_UNREADABLE"
            ) from None
        return self._token


class CommandToken:
    """A token that a program writes to its standard output, such as one that signs in at an issuer; asked again before the token ends.

    A token that does not say when it ends is asked for again after five minutes. Safe to use from several threads.

    Parameters
    ----------
    command
        Words as a shell has them; no shell runs them.
    """

    def __init__(self, command: str) -> None:
        self._command = shlex.split(command)
        self._lock = threading.Lock()
        self._token = ""
        self._until = 0.0

    def __call__(self) -> str:
        """Give the token.

        Raises
        ------
        OteoApiError
            UNAUTHENTICATED, reason TOKEN_COMMAND_FAILED.
        """
        with self._lock:
            if time.time() >= self._until:
                self._token = self._run()
                end = end_of(self._token)
                self._until = time.time() + _KEPT_SECONDS if end is None else end - _MARGIN_SECONDS
            return self._token

    def _run(self) -> str:
        try:
            # Standard error is left to the program: it may have to ask its user something.
            done = subprocess.run(self._command, stdout=subprocess.PIPE, text=True, timeout=_COMMAND_SECONDS, check=True)
        except (OSError, ValueError, IndexError, subprocess.SubprocessError) as error:
            # Not the error's own text, which holds the whole command line.
            said = f"exit status {error.returncode}" if isinstance(error, subprocess.CalledProcessError) else type(error).__name__
            name = self._command[0] if self._command else "nothing"
            raise OteoApiError(
                "UNAUTHENTICATED", f"OTEO_TOKEN_COMMAND ({name}) gave no token: {said}", reason="TOKEN_COMMAND_FAILED"
            ) from None
        token = done.stdout.strip()
        if not token or len(token.split()) != 1:
            raise OteoApiError(
                "UNAUTHENTICATED",
                "OTEO_TOKEN_COMMAND must write one token and nothing else to standard output",
                reason="TOKEN_COMMAND_FAILED",
            )
        return token


def from_environment(environment: Mapping[str, str]) -> str | TokenSource | None:
    """Give the token that variables name: ``OTEO_TOKEN``, ``OTEO_TOKEN_FILE``, ``OTEO_TOKEN_COMMAND``, the first that is set; None where none is."""
    if token := environment.get("OTEO_TOKEN"):
        return token
    if path := environment.get("OTEO_TOKEN_FILE"):
        return FileToken(Path(path))
    if command := environment.get("OTEO_TOKEN_COMMAND"):
        return CommandToken(command)
    return None
