"""The shared token."""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Mapping

from oteo_core.errors import FailedPrecondition, Unauthenticated
from oteo_core.settings import CoreSettings

# Probes come from systems that hold no token.
OPEN_METHODS = frozenset({"/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"})


def identify(method: str, metadata: Mapping[str, str], token: str | None) -> str:
    """Give the caller's identity, or raise `Unauthenticated`.

    Parameters
    ----------
    method
        Full method; health checks need no token.
    metadata
        The call's metadata, keys in lower case.
    token
        The token that calls must bear; None: none needed.
    """
    if method in OPEN_METHODS:
        return "probe"
    if token is None:
        return metadata.get("x-oteo-caller", "anonymous")
    scheme, _, given = metadata.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not given:
        raise Unauthenticated("this call needs a token: send the metadata `authorization: Bearer TOKEN`", reason="TOKEN_MISSING")
    if not hmac.compare_digest(given.encode(), token.encode()):
        raise Unauthenticated("this token is not valid here", reason="TOKEN_INVALID")
    # Whoever holds the shared token is one of Oteo's own parts and may say for whom it calls.
    return metadata.get("x-oteo-caller", "local")


def required_token(settings: CoreSettings) -> str | None:
    """Give the token to demand; refuse to serve without one unless the settings allow it."""
    token = settings.shared_token()
    if token or settings.allow_anonymous:
        return token or None
    raise FailedPrecondition(
        "no token is set: give OTEO_TOKEN or OTEO_TOKEN_FILE (or OTEO_ALLOW_ANONYMOUS=true on a test machine)", reason="NO_TOKEN"
    )


def bearer(token: str | None) -> Iterable[tuple[str, str]]:
    """Give the metadata that carries a token."""
    return (("authorization", f"Bearer {token}"),) if token else ()
