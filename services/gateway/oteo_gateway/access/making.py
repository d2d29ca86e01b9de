"""The door as the settings want it."""

from __future__ import annotations

from pathlib import Path

from oteo_core.security import required_token
from oteo_core.server import TlsAddress
from oteo_gateway.access.certificate_names import CertificateNames
from oteo_gateway.access.door import KEYS_AGE, AccessDoor, Running, Ways, limits_by
from oteo_gateway.access.issuer_keys import IssuerKeys
from oteo_gateway.access.oidc import OidcRules, OidcTokens
from oteo_gateway.access.quota_store import QuotaStore
from oteo_gateway.access.quotas import Quotas
from oteo_gateway.access.settings import AccessSettings
from oteo_gateway.access.static_tokens import StaticTokens


def make_door(settings: AccessSettings, store: QuotaStore, running: Running, processes: int = 1) -> AccessDoor:
    """Make the gateway's door.

    Parameters
    ----------
    settings
        What they say of it.
    store
        The table of quotas.
    running
        Operations that have not ended.
    processes
        Of this gateway.

    Raises
    ------
    FailedPrecondition
        ``NO_TOKEN``, ``TOKENS_UNREADABLE``.
    """
    ways = Ways(
        shared=required_token(settings),
        static=StaticTokens(settings.tokens_file or Path(settings.home, "tokens.json")),
        oidc=_oidc(settings) if settings.oidc_issuer else None,
        certificates=CertificateNames(settings.certificates) if settings.certificates else None,
    )
    return AccessDoor(
        ways, limits_by(settings.limits, settings.limits_of), Quotas(store, settings.quota_seconds), running, processes=processes
    )


def addresses_outside(settings: AccessSettings) -> list[TlsAddress]:
    """Give the gateway's addresses beside its own: for callers from outside, and for those with certificates."""
    certificate, key = settings.callers_cert or settings.tls_cert, settings.callers_key or settings.tls_key
    if certificate is None or key is None:
        return []
    found = []
    if settings.callers_listen:
        found.append(TlsAddress(settings.callers_listen, certificate, key))
    if settings.certificates_listen:
        found.append(TlsAddress(settings.certificates_listen, certificate, key, settings.certificates_ca or settings.tls_client_ca))
    return found


def _oidc(settings: AccessSettings) -> OidcTokens:
    keys = IssuerKeys(
        settings.oidc_issuer,
        settings.oidc_jwks_url,
        ca=settings.oidc_ca,
        timeout=settings.oidc_timeout_seconds,
        keep=settings.oidc_keys_seconds,
        refetch=settings.oidc_refetch_seconds,
        stale=settings.oidc_stale_seconds,
    )
    KEYS_AGE.set_function(lambda: -1.0 if keys.age is None else keys.age)
    rules = OidcRules(
        issuer=settings.oidc_issuer,
        audience=settings.oidc_audience,
        algorithms=settings.oidc_algorithms,
        authorized_parties=settings.oidc_authorized_parties,
        name_claim=settings.oidc_name_claim,
        roles_claim=settings.oidc_roles_claim,
        roles=settings.oidc_roles,
        skew=settings.oidc_skew_seconds,
    )
    return OidcTokens(rules, keys)
