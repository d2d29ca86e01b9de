"""TLS: a server's certificate, taken anew when its files are renewed, without a restart, and what callers show."""

from __future__ import annotations

import os
import ssl
from pathlib import Path
from typing import Any

import grpc

from oteo_core import telemetry
from oteo_core.errors import FailedPrecondition
from oteo_core.settings import CoreSettings

_LOG = telemetry.logger("oteo.certificates")


class CertificateFiles:
    """PEM files of a server's certificate, looked at whenever a caller connects.

    Parameters
    ----------
    certificate, key
        Chain and private key.
    client_ca
        Certificates that callers' own are checked against, which they must then show; None: callers are asked for none.

    Raises
    ------
    FailedPrecondition
        ``CERTIFICATE_UNUSABLE``: a file cannot be read, or key and certificate do not belong together.
    """

    def __init__(self, certificate: Path, key: Path, client_ca: Path | None = None) -> None:
        self._paths = [path.expanduser() for path in (certificate, key, *((client_ca,) if client_ca else ()))]
        try:
            self._stamp, self._pems = self._read()
        except (OSError, ValueError) as error:
            raise FailedPrecondition(f"the certificate of this server cannot be used: {error}", reason="CERTIFICATE_UNUSABLE") from error

    def credentials(self) -> grpc.ServerCredentials:
        """Give credentials that follow the files. TLS 1.2 is the least that gRPC speaks."""
        # None for "as before" is what gRPC documents; its stubs leave it out.
        renewed: Any = self._renewed
        return grpc.dynamic_ssl_server_credentials(self._configuration(), renewed, require_client_authentication=len(self._paths) > 2)

    def _configuration(self) -> grpc.ServerCertificateConfiguration:
        certificate, key, *ca = self._pems
        return grpc.ssl_server_certificate_configuration([(key, certificate)], root_certificates=ca[0] if ca else None)

    def _renewed(self) -> grpc.ServerCertificateConfiguration | None:
        """Give what the files hold now where they changed, None where not; called by gRPC in a thread of its own as a caller connects.

        Files that are half renewed, so that key and certificate do not match, are left for the next caller: the old pair goes on meanwhile.
        """
        try:
            if self._stamps() == self._stamp:
                return None
            self._stamp, self._pems = self._read()
        except (OSError, ValueError) as error:
            _LOG.error("a renewed certificate cannot be used; the old one goes on", file=str(self._paths[0]), error=str(error))
            return None
        _LOG.info("the certificate was renewed", file=str(self._paths[0]))
        return self._configuration()

    def _stamps(self) -> list[tuple[int, int, int]]:
        # Kubernetes renews by turning a link: the file behind it is another.
        found = [os.stat(path) for path in self._paths]
        return [(stat.st_mtime_ns, stat.st_size, stat.st_ino) for stat in found]

    def _read(self) -> tuple[list[tuple[int, int, int]], list[bytes]]:
        stamp = self._stamps()
        pems = [path.read_bytes() for path in self._paths]
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        # A key with a passphrase would have OpenSSL ask for it at the terminal. ssl.SSLError is an OSError.
        context.load_cert_chain(self._paths[0], self._paths[1], password="")
        if len(self._paths) > 2:
            context.load_verify_locations(self._paths[2])
        if self._stamps() != stamp:
            raise ValueError("the files are being written")
        return stamp, pems


def _read(path: Path | None) -> bytes | None:
    return None if path is None else path.expanduser().read_bytes()


def server_credentials(settings: CoreSettings) -> grpc.ServerCredentials | None:
    """Give the server's TLS credentials; None where no certificate is set."""
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    asked = settings.tls_client_ca if settings.tls_client_auth else None
    return CertificateFiles(settings.tls_cert, settings.tls_key, asked).credentials()


def channel_credentials(settings: CoreSettings) -> grpc.ChannelCredentials | None:
    """Give the TLS credentials for calls to other services; None where TLS is off."""
    if settings.tls_cert is None:
        return None
    certificate, key = _read(settings.tls_cert), _read(settings.tls_key)
    mutual = settings.tls_client_ca is not None
    return grpc.ssl_channel_credentials(_read(settings.tls_ca), key if mutual else None, certificate if mutual else None)
