"""What the tests of the door share: an issuer of tokens, certificates, a gateway as a process, calls with any token."""

from __future__ import annotations

import base64
import contextlib
import datetime
import functools
import hmac
import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from gateway_support import TOKEN, details_of
from grpc_health.v1 import health_pb2, health_pb2_grpc
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey
from waiting import patient, wait_for

from oteo_local import ports
from oteo_protos.gateway.v1 import identity_pb2, identity_pb2_grpc

AUDIENCE = "oteo-gateway"
SIGNATURES = ["RS256", "PS256", "ES256", "ES384"]


@functools.cache
def _rsa(number: int) -> dict[str, Any]:
    return RSAKey.generate_key(2048).as_dict(private=True)


def rsa_key(number: int, **parameters: str) -> RSAKey:
    """Give an RSA key; the same number gives the same one, since making them takes long."""
    plain = {name: value for name, value in _rsa(number).items() if name != "kid"}
    return RSAKey.import_key({**plain, **parameters})


def packed(value: Any) -> str:
    """Give JSON or bytes as tokens have them."""
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


class Issuer:
    """A real issuer on loopback: discovery document, keys, tokens of any kind. Keys may be turned, and it may go away and come back."""

    def __init__(self) -> None:
        self.keys: dict[str, Any] = {}
        self.jwks_extra: list[dict[str, Any]] = []
        self.requests: list[str] = []
        self.answers: dict[str, tuple[int, dict[str, str], bytes]] = {}
        self.add_key("first")
        self.port = ports.free_port()
        self._server: http.server.ThreadingHTTPServer | None = None
        self.up()

    @property
    def url(self) -> str:
        """As tokens name it."""
        return f"http://127.0.0.1:{self.port}/realms/hospital"

    def add_key(self, kid: str, kind: str = "RSA") -> Any:
        """Make a key that the issuer publishes."""
        made = rsa_key(len(self.keys), kid=kid, use="sig") if kind == "RSA" else ECKey.generate_key(kind, {"kid": kid, "use": "sig"})
        self.keys[kid] = made
        return made

    def up(self) -> None:
        """Answer."""
        issuer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.requests.append(self.path)
                status, headers, body = issuer.answer(self.path)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                with contextlib.suppress(OSError):
                    self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def down(self) -> None:
        """Be away: connections are refused."""
        assert self._server is not None
        self._server.shutdown()
        self._server.server_close()

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """Give status, headers and body for a path."""
        if path in self.answers:
            return self.answers[path]
        if path == "/realms/hospital/.well-known/openid-configuration":
            return 200, {}, json.dumps({"issuer": self.url, "jwks_uri": f"{self.url}/certs"}).encode()
        if path == "/realms/hospital/certs":
            keys = [key.as_dict(private=False) for key in self.keys.values()]
            return 200, {}, json.dumps({"keys": [*self.jwks_extra, *keys]}).encode()
        return 404, {}, b""

    def token(
        self,
        *,
        kid: str | None = "first",
        algorithm: str = "RS256",
        key: Any = None,
        header: Mapping[str, Any] | None = None,
        without: str = "",
        **claims: Any,
    ) -> str:
        """Make a token; claims are added to those of a good one."""
        now = int(time.time())
        said = {
            "iss": self.url,
            "sub": "f3a1-7",
            "aud": ["account", AUDIENCE],
            "exp": now + 300,
            "iat": now,
            "realm_access": {"roles": ["radiology", "offline_access"]},
            **claims,
        }
        said.pop(without, None)
        given = {"alg": algorithm, **({"kid": kid} if kid else {}), **(header or {})}
        return jwt.encode(given, said, key or self.keys[kid or "first"], algorithms=SIGNATURES)

    def unsigned(self) -> str:
        """Make a token with the algorithm ``none``."""
        return f"{packed({'alg': 'none'})}.{self.token().split('.')[1]}."

    def signed_with_public_key(self) -> str:
        """Make a token whose HMAC has the published key as its secret."""
        body = f"{packed({'alg': 'HS256', 'kid': 'first'})}.{self.token().split('.')[1]}"
        return f"{body}.{packed(hmac.digest(self.keys['first'].as_pem(private=False), body.encode(), 'sha256'))}"

    def settings(self, **more: Any) -> dict[str, Any]:
        """Give the gateway's settings for this issuer."""
        return {
            "oidc_issuer": self.url,
            "oidc_audience": [AUDIENCE],
            "oidc_roles_claim": "realm_access.roles",
            "oidc_roles": {"radiology": ["clinician"], "it": ["operator"]},
            **more,
        }


@contextmanager
def issuer_running() -> Iterator[Issuer]:
    """Run an issuer."""
    issuer = Issuer()
    try:
        yield issuer
    finally:
        issuer.down()


class Authority:
    """A certificate authority with what it signs, in files."""

    def __init__(self, folder: Path, name: str = "test-ca") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.ca = folder / "ca.pem"
        self.ca.write_bytes(_pem(self._signed(self._name, self._key, None)))

    def issue(self, common_name: str, stem: str | None = None, *, sans: list[x509.GeneralName] | None = None) -> tuple[Path, Path]:
        """Make certificate and key, and give their files."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        certificate = self._signed(name, key, sans or [x509.DNSName(common_name)])
        stem = stem or common_name
        files = self._folder / f"{stem}.crt", self._folder / f"{stem}.key"
        private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        for path, data in zip(files, (_pem(certificate), private), strict=True):
            part = path.with_suffix(".part")
            part.write_bytes(data)
            os.replace(part, path)
        return files

    def _signed(self, name: x509.Name, key: Any, sans: list[x509.GeneralName] | None) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(sans is None, None), critical=True)
        )
        if sans is not None:
            builder = builder.add_extension(x509.SubjectAlternativeName(sans), critical=False)
        return builder.sign(self._key, hashes.SHA256())


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


@dataclass
class GatewayProcess:
    """A gateway as a process, with any settings; its log is kept."""

    home: Path
    environment: dict[str, str] = field(default_factory=dict)
    credentials: grpc.ChannelCredentials | None = None
    port: int = field(default_factory=ports.free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        """What it wrote."""
        return (self.home / "gateway.log").read_text()

    def channel(self, credentials: grpc.ChannelCredentials | None = None, port: int = 0) -> grpc.Channel:
        """Open a channel to it."""
        given = credentials or self.credentials
        address = f"localhost:{port or self.port}"
        return grpc.secure_channel(address, given) if given is not None else grpc.insecure_channel(address)

    def up(self) -> None:
        """Start it, and wait for its health."""
        self.home.mkdir(parents=True, exist_ok=True)
        given = {
            **os.environ,
            "OTEO_HOME": str(self.home),
            "OTEO_TOKEN": TOKEN,
            "OTEO_GATEWAY_ADDRESS": f"127.0.0.1:{self.port}",
            "OTEO_TRITON_URLS": "127.0.0.1:1",
            "OTEO_AUGMENT_ADDRESS": "127.0.0.1:1",
            "OTEO_AUTOML_ADDRESS": "127.0.0.1:1",
            "OTEO_TRANSLATE_ADDRESS": "127.0.0.1:1",
            **self.environment,
        }
        with open(self.home / "gateway.log", "ab") as log:
            self.process = subprocess.Popen([sys.executable, "-m", "oteo_gateway"], env=given, stdout=log, stderr=log)
        wait_for(self._healthy, 60)

    def _healthy(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log[-3000:]
        with self.channel() as channel:
            try:
                answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
            except grpc.RpcError:
                return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    def down(self) -> int:
        """End it as an operator would."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(patient(30))
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


@contextmanager
def gateway_process(home: Path, credentials: grpc.ChannelCredentials | None = None, **environment: str) -> Iterator[GatewayProcess]:
    """Run a gateway's process for the length of a block; settings as variables without the prefix, in small letters."""
    running = GatewayProcess(home, {f"OTEO_{name.upper()}": value for name, value in environment.items()}, credentials)
    running.up()
    try:
        yield running
    finally:
        running.down()


def bearing(token: str) -> tuple[tuple[str, str], ...]:
    """Give the metadata that carries a token."""
    return (("authorization", f"Bearer {token}"),)


def who(channel: grpc.Channel, token: str | None = None, *more: tuple[str, str]) -> identity_pb2.WhoAmIResponse:
    """Ask a gateway who the caller is."""
    metadata = (*(bearing(token) if token is not None else ()), *more)
    return identity_pb2_grpc.IdentityServiceStub(channel).WhoAmI(identity_pb2.WhoAmIRequest(), metadata=metadata, timeout=120)


def refusal(channel: grpc.Channel, token: str | None = None) -> tuple[str, str]:
    """Ask who the caller is, expect a refusal, and give its code and reason."""
    try:
        answer = who(channel, token)
    except grpc.RpcError as error:
        return error.code().name, details_of(error)[0]
    raise AssertionError(f"not refused: {answer}")


def known(channel: grpc.Channel, token: str) -> bool:
    """Say whether a gateway takes a token."""
    try:
        return bool(who(channel, token).name)
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.UNAUTHENTICATED:
            raise
        return False
