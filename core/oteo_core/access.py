"""Who calls, and what lets a call in: the door that every server has.

The door of most services asks for the shared token (`SharedTokenDoor`); the gateway's own knows people, roles and limits. No gRPC here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, Protocol

from oteo_core.errors import OteoError
from oteo_core.security import identify

Kind = Literal["part", "token", "oidc", "certificate", "anonymous", "probe"]


class Role(StrEnum):
    """What a person or a system is at this site; what each may call stands in the gateway's table (``oteo_gateway/access/table.py``)."""

    VIEWER = "viewer"
    CLINICIAN = "clinician"
    TRAINER = "trainer"
    OPERATOR = "operator"
    ADMIN = "admin"


Certificate = Mapping[str, Sequence[bytes]]
"""What gRPC's authentication context says of a caller's certificate, which the handshake has checked."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who calls.

    Attributes
    ----------
    name
        Printable ASCII, at most 255 characters, alike in every call of the same caller: it goes into logs, operations and on to services.
    kind
        How it was told: ``part`` is one of Oteo's own parts, which bears the shared token and may say for whom it calls.
    roles
        Names of roles; a part needs none.
    expires
        Seconds since 1970 at which what the caller showed ends; None: never.
    """

    name: str
    kind: Kind = "part"
    roles: frozenset[str] = frozenset()
    expires: float | None = None


NOBODY = Identity("", "anonymous")


@dataclass(slots=True)
class Admission:
    """What a door says of one call: that it may be answered, or `error`, with which it is refused.

    `begin` is called when the answer begins and `end` when it is over, whatever happened; `took` with each message of a `metered` call, before it
    is looked at. Both may raise an `OteoError`, which ends the call.
    """

    identity: Identity = field(default=NOBODY)
    error: OteoError | None = None
    metered: bool = False

    def begin(self) -> None:
        """Take a place; `end` gives it back. Of a call that is refused: raise its error."""
        if self.error is not None:
            raise self.error

    def end(self) -> None:
        """Give the place back."""

    async def took(self, message: Any) -> None:
        """Count a message; may wait, which slows a stream."""


class Door(Protocol):
    """Decides about calls before their first message is read."""

    def waits_for_certificate(self, method: str, metadata: Mapping[str, str]) -> bool:
        """Say whether a call can be told by its certificate alone, which is known only when its answer begins."""

    async def admit(self, method: str, metadata: Mapping[str, str], certificate: Certificate) -> Admission:
        """Decide about a call.

        Parameters
        ----------
        method
            Full method, ``/package.Service/Method``.
        metadata
            The call's text metadata, keys in lower case.
        certificate
            The caller's, where `waits_for_certificate` said so; else empty.

        Raises
        ------
        OteoError
            The caller is not known.
        """


class Crowd(Protocol):
    """Knows of calls that would be refused for want of room or of time, so that their messages need not be read first."""

    def waits(self, method: str) -> bool:
        """Say whether calls of a method have to wait at the moment, so that its callers are to be checked."""

    def check(self, method: str, caller: str, remaining: float | None) -> None:
        """Refuse a call that would be refused anyway.

        Parameters
        ----------
        method
            Full method, ``/package.Service/Method``.
        caller
            The identity's name.
        remaining
            Seconds that the caller still waits; None: for ever.

        Raises
        ------
        ResourceExhausted
            With the time after which to try again.
        """


class SharedTokenDoor:
    """The door of a service that answers only Oteo's own parts.

    Parameters
    ----------
    token
        The token that calls must bear; None: none needed.
    """

    def __init__(self, token: str | None) -> None:
        self._token = token

    def waits_for_certificate(self, method: str, metadata: Mapping[str, str]) -> bool:
        """Say no: a certificate may be asked for beside the token, never in its place."""
        return False

    async def admit(self, method: str, metadata: Mapping[str, str], certificate: Certificate) -> Admission:
        """Let in who bears the token."""
        return Admission(Identity(identify(method, metadata, self._token)))
