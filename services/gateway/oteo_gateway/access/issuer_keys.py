"""The public keys of an OpenID Connect issuer: found by its discovery document, kept, fetched anew when they turn.

Sources: OpenID Connect Discovery 1.0, sections 3 and 4; RFC 7517, "JSON Web Key".
"""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import json
import ssl
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from joserfc.errors import JoseError
from joserfc.jwk import ECKey, RSAKey

from oteo_core import telemetry
from oteo_core.errors import InvalidArgument, Unauthenticated, Unavailable

_LOG = telemetry.logger("oteo.access")
_MOST_BYTES = 512 * 1024
_MOST_KEYS = 100
_LEAST_RSA_BITS = 2048
_CHUNK = 16 * 1024
_DISCOVERY = "/.well-known/openid-configuration"

PublicKey = RSAKey | ECKey


class _Broken(Exception):
    """What an issuer answered is of no use; the text may be logged."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_given: Any) -> None:
        """Follow nothing: an address that was checked must not lead to one that was not."""


def is_loopback(url: str) -> bool:
    """Say whether an address is this machine's own."""
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_url(url: str, field: str) -> str:
    """Give an address that keys may be fetched from.

    Raises
    ------
    InvalidArgument
        ``INSECURE_ISSUER``: not https, and not this machine's own.
    """
    parts = urlsplit(url)
    if (parts.scheme == "https" and parts.hostname) or (parts.scheme == "http" and is_loopback(url)):
        return url
    raise InvalidArgument(f"{field} must be an https address (http on this machine alone)", reason="INSECURE_ISSUER", field=field)


def fetch_json(url: str, timeout: float, ca: Path | None) -> dict[str, Any]:
    """Fetch a small JSON object; blocks.

    Parameters
    ----------
    url
        As `check_url` gives it.
    timeout
        Seconds for all of it.
    ca
        PEM file that the server is checked against; None: the system's.
    """
    end = time.monotonic() + timeout
    handlers: list[Any] = [_NoRedirect()]
    if url.startswith("https:"):
        handlers.append(urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=str(ca.expanduser()) if ca else None)))
    if is_loopback(url):
        handlers.append(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(url, headers={"Accept": "application/json"})
    data = bytearray()
    with urllib.request.build_opener(*handlers).open(request, timeout=timeout) as answer:
        while chunk := answer.read1(_CHUNK):
            data += chunk
            if len(data) > _MOST_BYTES:
                raise _Broken(f"more than {_MOST_BYTES} bytes")
            if time.monotonic() > end:
                raise _Broken(f"more than {timeout:g} seconds")
    found = json.loads(data)
    if not isinstance(found, dict):
        raise _Broken("no JSON object")
    return found


class IssuerKeys:
    """The keys of one issuer.

    They are fetched when the first token comes, again in the background when they are old, and at once when a token names a key that is not among them,
    but no oftener than every `refetch` seconds, so that made-up names cost the issuer nothing. While the issuer is away the old keys go on, for `stale`
    seconds.

    Parameters
    ----------
    issuer
        Address of the issuer, as its tokens name it.
    jwks_url
        Address of the keys; empty: what the issuer's discovery document names.
    ca
        PEM file that the issuer is checked against; None: the system's.
    timeout
        Seconds for one fetch.
    keep, refetch, stale
        Seconds: age at which keys are fetched again, least time between two fetches, age up to which keys serve while the issuer is away.
    clock
        Gives seconds that never fall.
    """

    def __init__(
        self,
        issuer: str,
        jwks_url: str = "",
        *,
        ca: Path | None = None,
        timeout: float = 5.0,
        keep: float = 300.0,
        refetch: float = 10.0,
        stale: float = 86_400.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._issuer = check_url(issuer, "oidc_issuer")
        self._jwks_url = check_url(jwks_url, "oidc_jwks_url") if jwks_url else ""
        self._ca = ca
        self._timeout = timeout
        self._keep, self._refetch, self._stale = keep, refetch, stale
        self._clock = clock
        self._keys: list[PublicKey] = []
        self._digest = ""
        self._fetched = -stale - 1.0
        self._tried = -refetch - 1.0
        self._failed = False
        self._task: asyncio.Task[None] | None = None
        self.generation = 0
        """Another number when there are other keys."""

    @property
    def age(self) -> float | None:
        """Seconds since the keys were fetched; None where there are none."""
        return self._clock() - self._fetched if self._keys else None

    def usable(self) -> bool:
        """Say whether there are keys that may still serve; has them fetched in the background where they are old."""
        age = self.age
        if age is None or age > self._stale:
            return False
        if age > self._keep and self._may_try():
            self._begin()
        return True

    async def candidates(self, kid: str | None, algorithm: str) -> list[PublicKey]:
        """Give the keys that may have signed a token: the one of that name, or those of the algorithm's kind where the token names none.

        Raises
        ------
        Unauthenticated
            ``TOKEN_KEY_UNKNOWN``: the issuer has no such key.
        Unavailable
            ``ISSUER_UNAVAILABLE``: the issuer does not answer, and without it nobody can tell.
        """
        if not self.usable():
            await self._try()
            if not self.usable():
                raise self._away()
        found = self._matching(kid, algorithm)
        if not found:
            await self._try()
            found = self._matching(kid, algorithm)
        if found:
            return found
        if self._failed:
            raise self._away()
        raise Unauthenticated("this token was signed with a key that its issuer does not have", reason="TOKEN_KEY_UNKNOWN")

    async def close(self) -> None:
        """Stop fetching."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _matching(self, kid: str | None, algorithm: str) -> list[PublicKey]:
        kind = "EC" if algorithm.startswith("ES") else "RSA"
        return [
            key
            for key in self._keys
            if key.key_type == kind and key.get("alg") in (None, algorithm) and (kid is None or key.get("kid") == kid)
        ]

    def _away(self) -> Unavailable:
        return Unavailable(
            "the issuer of this token does not answer at the moment, so the token cannot be checked; try again shortly",
            reason="ISSUER_UNAVAILABLE",
            retry_after=self._refetch,
        )

    def _may_try(self) -> bool:
        return self._clock() - self._tried >= self._refetch

    async def _try(self) -> None:
        """Fetch, or wait for the fetch that is under way, unless the last was a moment ago."""
        if (self._task is not None and not self._task.done()) or self._may_try():
            # The caller may go while others wait.
            await asyncio.shield(self._begin())

    def _begin(self) -> asyncio.Task[None]:
        if self._task is None or self._task.done():
            self._tried = self._clock()
            self._task = asyncio.create_task(self._fetch(), name="issuer-keys")
        return self._task

    async def _fetch(self) -> None:
        try:
            # The thread bounds itself but for what trickles into its headers; nobody waits for that.
            keys, digest = await asyncio.wait_for(asyncio.to_thread(self._load), 2 * self._timeout + 1.0)
        except (OSError, ValueError, KeyError, TypeError, TimeoutError, _Broken, InvalidArgument) as error:
            self._failed = True
            _LOG.warning("the issuer's keys cannot be fetched", issuer=self._issuer, error=f"{type(error).__name__}: {error}"[:300])
            return
        self._failed = False
        self._fetched = self._clock()
        if digest != self._digest:
            self._keys, self._digest = keys, digest
            self.generation += 1
            _LOG.info("the issuer's keys", issuer=self._issuer, count=len(keys))

    def _load(self) -> tuple[list[PublicKey], str]:
        url = self._jwks_url
        if not url:
            document = fetch_json(self._issuer.rstrip("/") + _DISCOVERY, self._timeout, self._ca)
            if document.get("issuer") != self._issuer:
                raise _Broken("the discovery document is another issuer's")
            url = check_url(str(document["jwks_uri"]), "jwks_uri")
        entries = fetch_json(url, self._timeout, self._ca)["keys"]
        if not isinstance(entries, list) or len(entries) > _MOST_KEYS:
            raise _Broken(f"no list of at most {_MOST_KEYS} keys")
        keys = [key for entry in entries if (key := _public_key(entry)) is not None]
        if not keys:
            raise _Broken("none of the keys can be used")
        return keys, hashlib.sha256(json.dumps(entries, sort_keys=True).encode()).hexdigest()


def _public_key(entry: Any) -> PublicKey | None:
    """Read a key that signatures can be checked with; None for another. Symmetric keys are never read."""
    if not isinstance(entry, dict) or entry.get("use", "sig") != "sig" or "d" in entry:
        return None
    try:
        if entry.get("kty") == "RSA":
            key = RSAKey.import_key(entry)
            return key if key.public_key.key_size >= _LEAST_RSA_BITS else None
        if entry.get("kty") == "EC" and entry.get("crv") in ("P-256", "P-384", "P-521"):
            return ECKey.import_key(entry)
    except (JoseError, ValueError, TypeError, KeyError):
        return None
    return None
