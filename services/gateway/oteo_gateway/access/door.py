"""The gateway's door: tells who calls, looks up whether the role may, and counts.

A bearer token is the shared one, a static one or the issuer's, in this order; a caller that bears none is told by its certificate. What a caller says of
itself (`x-oteo-caller`) is believed of Oteo's own parts alone.
"""

from __future__ import annotations

import asyncio
import hmac
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from prometheus_client import Counter as Count
from prometheus_client import Gauge as Level

from oteo_core.access import Admission, Certificate, Identity
from oteo_core.errors import OteoError, PermissionDenied, ResourceExhausted, Unauthenticated
from oteo_gateway.access.certificate_names import CertificateNames
from oteo_gateway.access.limits import Gauge, Limits, limits_for
from oteo_gateway.access.named_images import ImageNames, image_names
from oteo_gateway.access.oidc import OidcTokens
from oteo_gateway.access.quotas import Quotas
from oteo_gateway.access.static_tokens import StaticTokens
from oteo_gateway.access.table import OPEN, TABLE, Counts, Row
from oteo_gateway.wire import batch_size

# Without the caller: who asks for what is the audit's, and names in a metric would be without end.
_REFUSED = Count("oteo_access_refused_total", "Calls that were refused at the door, by reason.", ["reason"])
_LET_IN = Count("oteo_access_admitted_total", "Calls that were let in, by how the caller was told.", ["kind"])
# Found once: looking a label up costs more than the rest of the door.
_COUNTED = {kind: _LET_IN.labels(kind) for kind in ("part", "token", "oidc", "certificate", "anonymous")}
KEYS_AGE = Level("oteo_oidc_keys_age_seconds", "Age of the issuer's keys, seconds; -1 where there are none.")
REASONS = ("TOKEN_MISSING", "TOKEN_INVALID", "TOKEN_EXPIRED", "ROLE_MISSING", "RATE_LIMITED", "TOO_MANY_CALLS", "QUOTA_EXCEEDED")

_PROBE = Identity("probe", "probe")
_LONGEST_NAME = 255


class Running(Protocol):
    """Knows the operations that have not ended; blocks."""

    def running(self, caller: str) -> int:
        """Give how many a caller has."""


@dataclass(frozen=True, slots=True)
class Ways:
    """How callers are told.

    Attributes
    ----------
    shared
        The token of Oteo's own parts; None: a gateway for tests, which answers those too who show nothing.
    static, oidc, certificates
        The others; None where a site has none.
    """

    shared: str | None
    static: StaticTokens | None = None
    oidc: OidcTokens | None = None
    certificates: CertificateNames | None = None

    async def identify(self, metadata: Mapping[str, str], certificate: Certificate) -> Identity:
        """Give who calls.

        Raises
        ------
        Unauthenticated
            ``TOKEN_MISSING``, ``TOKEN_INVALID``, ``TOKEN_EXPIRED`` and the others of the single ways.
        Unavailable
            ``ISSUER_UNAVAILABLE``.
        """
        scheme, _, token = metadata.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and token:
            return await self._by_token(token, metadata)
        if self.certificates is not None:
            found = self.certificates.find(certificate)
            if found is not None:
                return found
        if self.shared is None:
            return Identity(metadata.get("x-oteo-caller", "anonymous")[:_LONGEST_NAME], "anonymous")
        raise Unauthenticated("this call needs a token: send the metadata `authorization: Bearer TOKEN`", reason="TOKEN_MISSING")

    async def _by_token(self, token: str, metadata: Mapping[str, str]) -> Identity:
        if self.shared is not None and hmac.compare_digest(token.encode(), self.shared.encode()):
            return Identity(metadata.get("x-oteo-caller", "local")[:_LONGEST_NAME], "part")
        if self.static is not None:
            found = self.static.find(token)
            if found is not None:
                return found
        if self.oidc is not None and self.oidc.looks_like(token):
            return await self.oidc.find(token)
        raise Unauthenticated("this token is not valid here", reason="TOKEN_INVALID")


class AccessDoor:
    """Decides about the gateway's calls; one event loop.

    Parameters
    ----------
    ways
        How callers are told.
    limits
        Gives a caller's limits.
    quotas
        Images of the day.
    running
        Operations that have not ended.
    now
        Gives seconds since 1970.
    processes
        Of this gateway.
    """

    def __init__(
        self,
        ways: Ways,
        limits: Callable[[Identity], Limits],
        quotas: Quotas,
        running: Running,
        now: Callable[[], float] = time.time,
        processes: int = 1,
    ) -> None:
        self.ways = ways
        self.limits = limits
        self.quotas = quotas
        self.running = running
        self.gauge = Gauge(processes=processes)
        self.now = now
        self.starting: Counter[str] = Counter()
        """Calls that are beginning an operation, by caller: they count as operations until the table has them."""
        for reason in REASONS:
            _REFUSED.labels(reason)

    def waits_for_certificate(self, method: str, metadata: Mapping[str, str]) -> bool:
        """Say whether a call bears no token, so that its certificate must tell."""
        return bool(self.ways.certificates) and method not in OPEN and "authorization" not in metadata

    async def admit(self, method: str, metadata: Mapping[str, str], certificate: Certificate) -> Admission:
        """Decide about a call; see `oteo_core.access.Door`."""
        if method in OPEN:
            return Admission(_PROBE)
        try:
            identity = await self.ways.identify(metadata, certificate)
        except OteoError as error:
            _REFUSED.labels(error.reason).inc()
            raise
        # Parts could ask the services themselves; and a gateway that demands nothing is for tests.
        if identity.kind in ("part", "anonymous"):
            _COUNTED[identity.kind].inc()
            return Admission(identity)
        try:
            row = permitted(method, identity)
            limits = self.limits(identity)
            self.gauge.take(identity.name, limits)
            if row.counts is not Counts.NOTHING and limits.images_per_day:
                await self.quotas.check(identity.name, limits.images_per_day)
            if row.starts and limits.running_operations:
                await self._check_running(identity.name, limits.running_operations)
        except OteoError as error:
            _REFUSED.labels(error.reason).inc()
            return Admission(identity, error)
        _COUNTED[identity.kind].inc()
        return Counted(self, identity, row, limits, image_names(method, identity))

    async def paced(self, name: str, limits: Limits) -> None:
        """Wait until a caller's rate has room for one more."""
        wait = self.gauge.wait(name, limits)
        while wait > 0:
            await asyncio.sleep(wait)
            wait = self.gauge.wait(name, limits)

    async def close(self) -> None:
        """Write what is counted and not written yet, and stop fetching keys."""
        await self.quotas.flush()
        if self.ways.oidc is not None:
            await self.ways.oidc.close()

    async def _check_running(self, name: str, most: int) -> None:
        running = await asyncio.to_thread(self.running.running, name) + self.starting[name]
        if running >= most:
            raise ResourceExhausted(
                f"{running} operations of yours have not ended, and {most} are allowed; wait for one, or cancel it",
                reason="QUOTA_EXCEEDED",
                metadata={"quota": "running_operations", "limit": str(most)},
                retry_after=30.0,
            )


def permitted(method: str, identity: Identity) -> Row:
    """Give the row of a method that a caller's roles may call.

    Raises
    ------
    PermissionDenied
        ``ROLE_MISSING``, with the roles that may.
    """
    row = TABLE.get(method)
    if row is not None and (row.roles is None or row.roles & identity.roles):
        return row
    may = sorted(row.roles or ()) if row is not None else []
    name = method.rpartition("/")[2]
    raise PermissionDenied(
        f"{name} is for the roles {', '.join(may)}; yours: {', '.join(sorted(identity.roles)) or 'none'}"
        if may
        else f"{name} is not open to callers of the gateway",
        reason="ROLE_MISSING",
        metadata={"method": method, "roles": ",".join(may)},
    )


@contextmanager
def _counted_where_refused() -> Iterator[None]:
    try:
        yield
    except OteoError as error:
        _REFUSED.labels(error.reason).inc()
        raise


class Counted(Admission):
    """A call that was let in and is counted."""

    __slots__ = ("_door", "_images", "_limits", "_row", "_skipped")

    def __init__(self, door: AccessDoor, identity: Identity, row: Row, limits: Limits, images: ImageNames | None) -> None:
        super().__init__(identity, None, row.counts is not Counts.NOTHING)
        self._door = door
        self._row = row
        self._limits = limits
        self._images = images
        # The first image of a call was counted as a call already.
        self._skipped = False

    def begin(self) -> None:
        """Take a place among the caller's calls: ``TOO_MANY_CALLS``."""
        with _counted_where_refused():
            self._door.gauge.begin(self.identity.name, self._limits)
        if self._row.starts:
            self._door.starting[self.identity.name] += 1

    def end(self) -> None:
        """Give the place back."""
        self._door.gauge.end(self.identity.name)
        if self._row.starts:
            name = self.identity.name
            self._door.starting[name] -= 1
            if not self._door.starting[name]:
                del self._door.starting[name]

    async def took(self, message: Any) -> None:
        """Count a message's images; a stream is slowed to the caller's rate, and ends with the day's quota, with the token, or at an image not the caller's."""
        if self.identity.expires is not None and self._door.now() >= self.identity.expires:
            raise Unauthenticated("the token expired while the call went on; get a new one and call again", reason="TOKEN_EXPIRED")
        if self._images is not None:
            with _counted_where_refused():
                self._images.check(message)
        if not self._skipped:
            self._skipped = True
            if self._row.counts is Counts.MESSAGES_BUT_FIRST:
                return
        else:
            await self._door.paced(self.identity.name, self._limits)
        if not self._limits.images_per_day:
            return
        with _counted_where_refused():
            await self._door.quotas.check(self.identity.name, self._limits.images_per_day)
        images = batch_size(message) if self._row.counts is Counts.BATCHES and isinstance(message, bytes) else 1
        self._door.quotas.add(self.identity.name, images)


def limits_by(by_role: Mapping[Any, Limits], by_name: Mapping[str, Limits]) -> Callable[[Identity], Limits]:
    """Make what gives a caller's limits, kept for those who call again and again."""
    kept: dict[tuple[str, frozenset[str]], Limits] = {}

    def limits(identity: Identity) -> Limits:
        key = (identity.name, identity.roles) if identity.name in by_name else ("", identity.roles)
        found = kept.get(key)
        if found is None:
            found = kept[key] = limits_for(identity.name, identity.roles, by_role, by_name)
        return found

    return limits
