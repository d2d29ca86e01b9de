"""Ask a server for its health: ``python -m oteo_core.probe HOST:PORT``; exit status 0 where it serves.

For container engines, and for clusters whose own probes cannot speak TLS. TLS is taken from the same settings as the server's, and so is the name that the
certificate is checked for: the first of those in it.
"""

from __future__ import annotations

import argparse
import ssl
import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from oteo_core.certificates import channel_credentials
from oteo_core.settings import CoreSettings


def serves(address: str, settings: CoreSettings, timeout: float = 3.0) -> bool:
    """Tell whether a server says that it serves.

    Parameters
    ----------
    address
        ``host:port``.
    settings
        TLS, if any.
    timeout
        Seconds.
    """
    credentials = channel_credentials(settings)
    if credentials is None:
        channel = grpc.insecure_channel(address)
    else:
        # The probe comes to this machine by its address, which no certificate names.
        options = [("grpc.ssl_target_name_override", certificate_name(settings))]
        channel = grpc.secure_channel(address, credentials, options)
    with channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=timeout)
        except grpc.RpcError as error:
            print(f"{address}: {error}", file=sys.stderr)
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def certificate_name(settings: CoreSettings) -> str:
    """Give the first DNS name that the server's certificate is for; ``localhost`` where it names none."""
    if settings.tls_cert is None:
        return "localhost"
    # The standard library decodes certificates of peers only; this is the function that its own tests use.
    decode = ssl._ssl._test_decode_cert  # type: ignore[attr-defined]
    names = decode(str(settings.tls_cert.expanduser())).get("subjectAltName", ())
    return next((str(value) for kind, value in names if kind == "DNS"), "localhost")


def main() -> int:
    """Ask as the command line says; give the exit status."""
    parser = argparse.ArgumentParser(prog="python -m oteo_core.probe", description="Ask a server for its health.")
    parser.add_argument("address", help="host:port")
    parser.add_argument("--timeout", type=float, default=3.0, help="seconds")
    options = parser.parse_args()
    return 0 if serves(options.address, CoreSettings(), options.timeout) else 1


if __name__ == "__main__":
    sys.exit(main())
