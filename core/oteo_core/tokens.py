"""The file of static tokens: who has one, with which roles, until when. The tokens themselves are not in it, only their SHA-256.

A token is 32 random bytes, so a plain hash cannot be searched back. Written by ``oteo tokens``, read by the gateway.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import secrets
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from oteo_core.access import Role
from oteo_core.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound

PREFIX = "oteo_"
"""What tokens begin with, so that searches for leaked secrets find them."""
_RANDOM_BYTES = 32
_NAME = re.compile(r"^[a-z0-9]([a-z0-9._@-]{0,61}[a-z0-9])?$")
_DIGEST = re.compile(r"^[0-9a-f]{64}$")
_MOST_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class TokenRecord:
    """One token.

    Attributes
    ----------
    name
        Whose it is: lower-case letters, digits and ``. _ @ -``, at most 63.
    sha256
        Of the token, lower-case hexadecimal.
    roles
        What it may do.
    created
        When it was made; None where that is not known.
    expires
        When it ends; None: never.
    """

    name: str
    sha256: str
    roles: tuple[Role, ...]
    created: datetime | None = None
    expires: datetime | None = None

    def valid(self, now: float) -> bool:
        """Say whether it has not ended yet; ``now`` in seconds since 1970."""
        return self.expires is None or now < self.expires.timestamp()


def digest_of(token: str) -> str:
    """Give what the file holds of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


class TokenFile:
    """A file of tokens; several programs may change it at a time.

    Parameters
    ----------
    path
        JSON; need not be there yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.expanduser()

    def read(self) -> list[TokenRecord]:
        """Give all tokens; none where there is no file.

        Raises
        ------
        FailedPrecondition
            ``TOKENS_UNREADABLE``. What stands in the file is not repeated.
        """
        try:
            with open(self.path, "rb") as file:
                data = file.read(_MOST_BYTES + 1)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise self._unreadable(error.strerror or type(error).__name__) from error
        if len(data) > _MOST_BYTES:
            raise self._unreadable("it is larger than 8 MiB")
        try:
            return [_record(entry) for entry in json.loads(data)["tokens"]]
        except InvalidArgument as error:
            raise self._unreadable(error.message) from error
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise self._unreadable('it is not JSON of the form {"tokens": [{"name": …, "sha256": …, "roles": […]}]}') from error

    def create(self, name: str, roles: Sequence[str], lifetime: timedelta | None = None) -> tuple[str, TokenRecord]:
        """Make a token and write it down; the token itself is given here and nowhere else.

        Parameters
        ----------
        name
            Whose.
        roles
            Names of roles, at least one.
        lifetime
            How long it is valid; None: until it is revoked.

        Raises
        ------
        AlreadyExists
            ``TOKEN_EXISTS``: there is a valid one of that name.
        InvalidArgument
            ``BAD_NAME``, ``UNKNOWN_ROLE``.
        """
        token = PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)
        now = datetime.now(UTC).replace(microsecond=0)
        record = TokenRecord(_name(name), digest_of(token), _roles(roles), now, now + lifetime if lifetime is not None else None)
        with self._locked():
            kept = self.read()
            if any(other.name == name and other.valid(now.timestamp()) for other in kept):
                raise AlreadyExists(f"there is a token of the name {name}; revoke it first", reason="TOKEN_EXISTS", field="name")
            self._write([*(other for other in kept if other.name != name), record])
        return token, record

    def revoke(self, name: str) -> None:
        """Take a token out.

        Raises
        ------
        NotFound
            ``TOKEN_NOT_FOUND``.
        """
        with self._locked():
            kept = self.read()
            left = [record for record in kept if record.name != name]
            if len(left) == len(kept):
                raise NotFound(f"there is no token of the name {name}", reason="TOKEN_NOT_FOUND", field="name")
            self._write(left)

    def _unreadable(self, why: str) -> FailedPrecondition:
        return FailedPrecondition(f"the file of tokens {self.path} cannot be read: {why}", reason="TOKENS_UNREADABLE")

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # Beside it: the file itself is replaced, and a lock on it would be on the old one.
        handle = os.open(self.path.with_name(f".{self.path.name}.lock"), os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def _write(self, records: Sequence[TokenRecord]) -> None:
        entries = [
            {
                "name": record.name,
                "sha256": record.sha256,
                "roles": list(record.roles),
                "created": record.created.isoformat() if record.created else None,
                "expires": record.expires.isoformat() if record.expires else None,
            }
            for record in records
        ]
        # Readable to its owner alone, from the first byte; one that was opened to others, such as a container's user, stays so.
        mode = stat.S_IMODE(self.path.stat().st_mode) if self.path.exists() else 0o600
        handle, part = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}.")
        try:
            with open(handle, "w", encoding="utf-8") as file:
                json.dump({"tokens": entries}, file, indent=2)
                file.write("\n")
                file.flush()
                os.fchmod(file.fileno(), mode)
                os.fsync(file.fileno())
            os.replace(part, self.path)
        except BaseException:
            Path(part).unlink(missing_ok=True)
            raise


def _record(entry: dict[str, object]) -> TokenRecord:
    unknown = set(entry) - {"name", "sha256", "roles", "created", "expires"}
    if unknown:
        raise InvalidArgument("an entry has a key that is none of name, sha256, roles, created, expires", reason="BAD_ENTRY")
    name, digest, roles = entry["name"], entry["sha256"], entry["roles"]
    if not isinstance(name, str) or not isinstance(roles, list):
        raise InvalidArgument("an entry's name is no text, or its roles are no list", reason="BAD_ENTRY")
    if not isinstance(digest, str) or not _DIGEST.match(digest):
        raise InvalidArgument(f"sha256 of {_name(name)} is not 64 hexadecimal digits", reason="BAD_ENTRY")
    return TokenRecord(_name(name), digest, _roles(roles), _time(entry.get("created")), _time(entry.get("expires")))


def _name(name: str) -> str:
    if not _NAME.match(name):
        raise InvalidArgument(
            "a token's name is of lower-case letters, digits and . _ @ -, begins and ends with a letter or digit, and has at most 63",
            reason="BAD_NAME",
            field="name",
        )
    return name


def _roles(roles: Sequence[object]) -> tuple[Role, ...]:
    if not roles or any(role not in list(Role) for role in roles):
        raise InvalidArgument(f"roles are one or more of {', '.join(Role)}", reason="UNKNOWN_ROLE", field="roles")
    return tuple(Role(str(role)) for role in dict.fromkeys(roles))


def _time(value: object) -> datetime | None:
    if value is None:
        return None
    time = datetime.fromisoformat(str(value))
    if time.tzinfo is None:
        raise InvalidArgument("a time has no zone: 2027-01-31T00:00:00+00:00", reason="BAD_ENTRY")
    return time
