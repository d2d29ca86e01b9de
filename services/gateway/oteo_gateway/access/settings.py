"""Settings of the gateway's door."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator, model_validator
from pydantic_settings import NoDecode

from oteo_core.access import Role
from oteo_core.settings import CoreSettings
from oteo_gateway.access.certificate_names import KINDS
from oteo_gateway.access.issuer_keys import check_url
from oteo_gateway.access.limits import DEFAULTS, Limits
from oteo_gateway.access.oidc import Algorithm

_SIGNATURES: list[Algorithm] = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512"]


class AccessSettings(CoreSettings):
    """Who is let in at the gateway, as what, and how much each may ask. Nothing here is a secret: tokens are in a file as hashes, keys are public."""

    tokens_file: Path | None = Field(
        default=None, description="File of static tokens, as `oteo tokens` writes it; unset: tokens.json below home. It need not be there."
    )
    oidc_issuer: str = Field(
        default="", description="Address of the OpenID Connect issuer whose tokens are taken, as they name it; empty: none."
    )
    oidc_audience: Annotated[list[str], NoDecode] = Field(
        default=[], description="Audiences that a token must have one of, separated by commas; must be set with oidc_issuer."
    )
    oidc_authorized_parties: Annotated[list[str], NoDecode] = Field(
        default=[], description="Clients (claim azp) that a token must be made for, separated by commas; none: any."
    )
    oidc_algorithms: Annotated[list[Algorithm], NoDecode] = Field(
        default=_SIGNATURES, min_length=1, description="Signatures that are taken, separated by commas."
    )
    oidc_jwks_url: str = Field(default="", description="Address of the issuer's keys; empty: as its discovery document says.")
    oidc_ca: Path | None = Field(default=None, description="PEM certificates that the issuer is checked against; unset: the system's.")
    oidc_name_claim: str = Field(
        default="sub", min_length=1, description="Claim of a caller's name: a path with dots, or a JSON pointer that begins with a slash."
    )
    oidc_roles_claim: str = Field(default="roles", min_length=1, description="Claim of a caller's roles, such as realm_access.roles.")
    oidc_roles: dict[str, list[Role]] = Field(
        default_factory=dict,
        description='Oteo\'s roles by value of that claim, JSON: {"radiology": ["clinician"]}; empty: the values are roles of Oteo themselves.',
    )
    oidc_skew_seconds: float = Field(
        default=60.0, ge=0, le=600, description="Seconds by which the issuer's clock may differ from this one."
    )
    oidc_timeout_seconds: float = Field(default=5.0, gt=0, le=60, description="Fetching the issuer's keys takes no longer, seconds.")
    oidc_keys_seconds: float = Field(default=300.0, gt=0, description="The issuer's keys are fetched again after so long, seconds.")
    oidc_refetch_seconds: float = Field(
        default=10.0, gt=0, description="Least time between two fetches, whatever keys tokens name, seconds."
    )
    oidc_stale_seconds: float = Field(
        default=86_400.0, gt=0, description="Age up to which the issuer's keys serve while it does not answer, seconds."
    )
    callers_listen: str = Field(
        default="",
        description="One more host:port, which speaks TLS to callers from outside where Oteo's own parts speak none among themselves; empty: none.",
    )
    callers_cert: Path | None = Field(default=None, description="PEM certificate chain that is shown there; unset: tls_cert.")
    callers_key: Path | None = Field(default=None, description="Its PEM private key; unset: tls_key.")
    certificates: dict[str, list[Role]] = Field(
        default_factory=dict,
        description='Roles of callers with certificates by a name in these, JSON: {"dns:pacs.hospital.example": ["clinician"]}; '
        "kinds: uri, dns, email, cn, subject.",
    )
    certificates_listen: str = Field(default="", description="One more host:port, where every caller must show a certificate; empty: none.")
    certificates_ca: Path | None = Field(
        default=None, description="PEM certificates that callers' own are checked against there; unset: tls_client_ca."
    )
    limits: dict[Role, Limits] = Field(
        default_factory=lambda: dict(DEFAULTS), description="What one caller may ask, by role, JSON; roles left out keep their defaults."
    )
    limits_of: dict[str, Limits] = Field(
        default_factory=dict,
        description='The same by caller, JSON: {"token:viewer-7": {"requests_per_minute": 6000}}; it replaces the roles\'.',
    )
    quota_seconds: float = Field(default=2.0, gt=0, description="Period in which the use of quotas is written and read, seconds.")

    @field_validator("oidc_audience", "oidc_authorized_parties", "oidc_algorithms", mode="before")
    @classmethod
    def _listed(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        # Helm gives lists as JSON.
        return json.loads(value) if value.lstrip().startswith("[") else [part.strip() for part in value.split(",") if part.strip()]

    @field_validator("limits")
    @classmethod
    def _with_defaults(cls, value: dict[Role, Limits]) -> dict[Role, Limits]:
        return {**DEFAULTS, **value}

    @field_validator("certificates")
    @classmethod
    def _named(cls, value: dict[str, list[Role]]) -> dict[str, list[Role]]:
        for name in value:
            kind, _, rest = name.partition(":")
            if kind not in KINDS or not rest:
                raise ValueError(f"a certificate's name begins with one of {', '.join(KINDS)} and a colon")
        return value

    @model_validator(mode="after")
    def _whole(self) -> AccessSettings:
        if self.oidc_issuer:
            if not self.oidc_audience:
                raise ValueError("oidc_audience must be set with oidc_issuer: tokens for other systems of the issuer would be taken")
            for field in ("oidc_issuer", "oidc_jwks_url"):
                if getattr(self, field):
                    _secure(getattr(self, field), field)
        shown = (self.callers_cert or self.tls_cert) and (self.callers_key or self.tls_key)
        if (self.callers_listen or self.certificates_listen) and not shown:
            raise ValueError("callers_listen and certificates_listen need callers_cert and callers_key (or tls_cert and tls_key)")
        if self.certificates_listen and not (self.certificates_ca or self.tls_client_ca):
            raise ValueError("certificates_listen needs certificates_ca (or tls_client_ca)")
        self.__dict__["tokens_file"] = self.tokens_file or self.home / "tokens.json"
        return self


def _secure(url: str, field: str) -> None:
    from oteo_core.errors import InvalidArgument

    try:
        check_url(url, field)
    except InvalidArgument as error:
        raise ValueError(error.message) from error


AccessSettings.not_for_jobs = frozenset(set(AccessSettings.model_fields) - set(CoreSettings.model_fields))
