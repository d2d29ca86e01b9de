"""Tokens of an OpenID Connect issuer: signed claims, checked against its keys, turned into an identity with roles.

Sources: RFC 7519, "JSON Web Token"; RFC 8725, "JSON Web Token Best Current Practices"; OpenID Connect Core 1.0, section 3.1.3.7; RFC 9068, section 4.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import quote

from joserfc.errors import ExpiredTokenError, InvalidClaimError, JoseError, MissingClaimError
from joserfc.jws import JWSRegistry, extract_compact, validate_compact
from joserfc.jwt import JWTClaimsRegistry

from oteo_core.access import Identity, Role
from oteo_core.errors import Unauthenticated
from oteo_gateway.access.issuer_keys import IssuerKeys

Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512"]
"""Signatures with public keys; neither ``none`` nor HS…, whose secret a published key could be taken for."""

_MOST_CHARACTERS = 16 * 1024
_MOST_NAME = 200
# The year 33658: what is later is no time, and too large for arithmetic.
_LATEST = 1e12
_MOST_KEPT = 10_000
_MOST_TRIED_KEYS = 4
# An access token or one that does not say; not those for logging out and the like.
_TYPES = frozenset({"jwt", "at+jwt", "application/at+jwt"})


@dataclass(frozen=True, slots=True)
class OidcRules:
    """What a token must say.

    Attributes
    ----------
    issuer
        ``iss``.
    audience
        One of these must be in ``aud``.
    algorithms
        That may have signed it.
    authorized_parties
        ``azp`` must be one of these; empty: any.
    name_claim, roles_claim
        Where name and roles stand; a path with dots, or a JSON pointer where it begins with ``/``.
    roles
        By value of the roles' claim; empty: a value that is a role's name is that role.
    skew
        Seconds by which clocks may differ.
    """

    issuer: str
    audience: Sequence[str]
    algorithms: Sequence[str]
    authorized_parties: Sequence[str] = ()
    name_claim: str = "sub"
    roles_claim: str = "roles"
    roles: Mapping[str, Sequence[Role]] = field(default_factory=dict)
    skew: float = 60.0


@dataclass(frozen=True, slots=True)
class _Kept:
    identity: Identity
    until: float
    generation: int


class OidcTokens:
    """Checks tokens of one issuer. A token that was found good is not checked again until it ends or the issuer has other keys.

    Parameters
    ----------
    rules
        What a token must say.
    keys
        The issuer's.
    now
        Gives seconds since 1970.
    """

    def __init__(self, rules: OidcRules, keys: IssuerKeys, now: Callable[[], float] = time.time) -> None:
        self._rules = rules
        self._keys = keys
        self._now = now
        self._registry = JWSRegistry(algorithms=list(rules.algorithms), strict_check_header=False)
        self._kept: OrderedDict[bytes, _Kept] = OrderedDict()

    @staticmethod
    def looks_like(token: str) -> bool:
        """Say whether a token has a signed token's form."""
        return token.count(".") == 2 and token.startswith("ey")

    async def close(self) -> None:
        """Stop fetching keys."""
        await self._keys.close()

    async def find(self, token: str) -> Identity:
        """Give who bears a token.

        Raises
        ------
        Unauthenticated
            ``TOKEN_INVALID`` (form, algorithm, signature), ``TOKEN_EXPIRED``, ``TOKEN_CLAIM`` (issuer, audience, time, party, name),
            ``TOKEN_KEY_UNKNOWN``. The messages hold nothing of the token.
        Unavailable
            ``ISSUER_UNAVAILABLE``.
        """
        if len(token) > _MOST_CHARACTERS:
            raise _invalid("it is too long")
        digest = hashlib.sha256(token.encode()).digest()
        kept = self._kept.get(digest)
        if kept is not None and self._keys.usable() and kept.generation == self._keys.generation and self._now() < kept.until:
            self._kept.move_to_end(digest)
            return kept.identity
        # What costs nothing first: only a token of this issuer that could be good may have its keys fetched.
        signed, claims = self._read(token)
        self._check(claims)
        identity = self._identity(claims)
        header = signed.headers()
        for key in (await self._keys.candidates(header.get("kid"), header["alg"]))[:_MOST_TRIED_KEYS]:
            try:
                good = validate_compact(signed, key, registry=self._registry)
            except (JoseError, ValueError, TypeError):
                continue
            if good:
                self._keep(digest, identity)
                return identity
        raise _invalid("its signature is not the issuer's")

    def _read(self, token: str) -> tuple[Any, dict[str, Any]]:
        try:
            signed = extract_compact(token.encode(), registry=self._registry)
            header = signed.headers()
            claims = json.loads(signed.payload)
        except (JoseError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise _invalid("it is no signed token") from error
        if header.get("alg") not in self._rules.algorithms:
            raise _invalid(f"its algorithm is none of {', '.join(self._rules.algorithms)}")
        kind, kid = header.get("typ", "JWT"), header.get("kid")
        if not isinstance(claims, dict) or not isinstance(kind, str) or kind.lower() not in _TYPES or "crit" in header:
            raise _invalid("it is of another kind")
        if kid is not None and not isinstance(kid, str):
            raise _invalid("its key has no name")
        return signed, claims

    def _check(self, claims: dict[str, Any]) -> None:
        rules = self._rules
        registry = JWTClaimsRegistry(
            now=int(self._now()),
            leeway=int(rules.skew),
            iss={"essential": True, "value": rules.issuer},
            aud={"essential": True, "values": list(rules.audience)},
            exp={"essential": True},
        )
        try:
            registry.validate(claims)
        except ExpiredTokenError as error:
            raise Unauthenticated("this token has expired; get a new one from its issuer", reason="TOKEN_EXPIRED") from error
        except (MissingClaimError, InvalidClaimError) as error:
            raise _claim(error.claim) from error
        if claims["exp"] > _LATEST:
            raise _claim("exp")
        if rules.authorized_parties and claims.get("azp") not in rules.authorized_parties:
            raise _claim("azp")

    def _identity(self, claims: dict[str, Any]) -> Identity:
        rules = self._rules
        name = claim_at(claims, rules.name_claim)
        if not isinstance(name, str) or not name:
            raise _claim(rules.name_claim)
        # Into metadata of calls goes printable ASCII alone.
        plain = quote(name, safe="!#$&'()*+,/:;=?@[]|~ ")
        if len(plain) > _MOST_NAME:
            raise _claim(rules.name_claim)
        value = claim_at(claims, rules.roles_claim)
        said = (
            value.split()
            if isinstance(value, str)
            else [item for item in value if isinstance(item, str)]
            if isinstance(value, list)
            else []
        )
        if rules.roles:
            roles = {str(role) for item in said for role in rules.roles.get(item, ())}
        else:
            roles = {item for item in said if item in list(Role)}
        return Identity(f"oidc:{plain}", "oidc", frozenset(roles), float(claims["exp"]) + rules.skew)

    def _keep(self, digest: bytes, identity: Identity) -> None:
        self._kept[digest] = _Kept(identity, identity.expires or 0.0, self._keys.generation)
        self._kept.move_to_end(digest)
        while len(self._kept) > _MOST_KEPT:
            self._kept.popitem(last=False)


def claim_at(claims: Mapping[str, Any], path: str) -> Any:
    """Give the claim at a path: ``realm_access.roles``, or a JSON pointer (RFC 6901) such as ``/https:~1~1hospital.example~1roles``; None where none is."""
    pointer = path.startswith("/")
    steps = [step.replace("~1", "/").replace("~0", "~") for step in path[1:].split("/")] if pointer else path.split(".")
    found: Any = claims
    for step in steps:
        if not isinstance(found, Mapping) or step not in found:
            return None
        found = found[step]
    return found


def _invalid(why: str) -> Unauthenticated:
    return Unauthenticated(f"this token is not valid here: {why}", reason="TOKEN_INVALID")


def _claim(name: str) -> Unauthenticated:
    return Unauthenticated(
        f"this token is not for this gateway: its claim {name} is missing or another", reason="TOKEN_CLAIM", metadata={"claim": name}
    )
