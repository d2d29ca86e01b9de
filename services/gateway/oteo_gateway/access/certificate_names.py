"""Callers that show a certificate: whose names in it stand for which roles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from oteo_core.access import Certificate, Identity, Role
from oteo_core.errors import Unauthenticated

# In this order: what issuers of certificates for machines write most carefully comes first.
_PROPERTIES = {"uri": "peer_uri", "dns": "peer_dns", "email": "peer_email", "cn": "x509_common_name", "subject": "x509_subject"}
KINDS = tuple(_PROPERTIES)
"""What a name may be: a URI, DNS name or address among the alternative names, the subject's common name, or the whole subject."""


class CertificateNames:
    """The names that stand for roles.

    Parameters
    ----------
    roles
        By name with its kind, such as ``dns:pacs.hospital.example``.
    """

    def __init__(self, roles: Mapping[str, Sequence[Role]]) -> None:
        self._roles = {name: frozenset(given) for name, given in roles.items()}

    def __bool__(self) -> bool:
        """Say whether there are any."""
        return bool(self._roles)

    def find(self, certificate: Certificate) -> Identity | None:
        """Give who shows a certificate; None where none was shown. The first of its names that is known decides, and it alone.

        Raises
        ------
        Unauthenticated
            ``CERTIFICATE_UNKNOWN``: none of its names is known here.
        """
        names = [
            f"{kind}:{value.decode(errors='replace')}"
            for kind, property_ in _PROPERTIES.items()
            for value in certificate.get(property_) or ()
        ]
        for name in names:
            roles = self._roles.get(name)
            if roles is not None:
                return Identity(f"cert:{name}", "certificate", roles)
        if names:
            raise Unauthenticated(
                "none of the names in your certificate is known here; an operator can add one to OTEO_CERTIFICATES",
                reason="CERTIFICATE_UNKNOWN",
            )
        return None
