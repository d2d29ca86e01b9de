"""TLS at the gateway's process: versions, a certificate renewed without a restart, callers told by their certificates."""

from __future__ import annotations

import socket
import ssl
import warnings
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from access_support import Authority, GatewayProcess, gateway_process, refusal, who
from cryptography import x509
from gateway_support import TOKEN
from google.longrunning import operations_pb2, operations_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from waiting import wait_for

from oteo_core.certificates import CertificateFiles
from oteo_core.errors import FailedPrecondition
from oteo_core.tokens import TokenFile
from oteo_local import ports
from oteo_protos.gateway.v1 import deployment_pb2, deployment_pb2_grpc

ROLES = '{"dns:pacs.hospital.example": ["clinician"], "uri:spiffe://hospital/console": ["operator"], "cn:old-viewer": ["viewer"]}'


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def mutual_port() -> int:
    return ports.free_port()


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, authority: Authority, mutual_port: int) -> Iterator[GatewayProcess]:
    certificate, key = authority.issue("localhost")
    with gateway_process(
        tmp_path_factory.mktemp("tls"),
        grpc.ssl_channel_credentials(authority.ca.read_bytes()),
        tls_cert=str(certificate),
        tls_key=str(key),
        certificates_listen=f"127.0.0.1:{mutual_port}",
        certificates_ca=str(authority.ca),
        certificates=ROLES,
    ) as running:
        yield running


def shown(authority: Authority, files: tuple[Path, Path]) -> grpc.ChannelCredentials:
    certificate, key = files
    return grpc.ssl_channel_credentials(authority.ca.read_bytes(), key.read_bytes(), certificate.read_bytes())


def handshake(port: int, authority: Authority, least: ssl.TLSVersion, most: ssl.TLSVersion) -> tuple[str | None, bytes]:
    """Shake hands as TLS of these versions; give the version agreed on and the server's certificate."""
    context = ssl.create_default_context(cafile=str(authority.ca))
    context.set_alpn_protocols(["h2"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.maximum_version, context.minimum_version = most, least
    with (
        socket.create_connection(("127.0.0.1", port), timeout=60) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as wrapped,
    ):
        return wrapped.version(), wrapped.getpeercert(binary_form=True) or b""


def test_tls_is_at_least_1_2(gateway: GatewayProcess, authority: Authority) -> None:
    for version, name in ((ssl.TLSVersion.TLSv1_2, "TLSv1.2"), (ssl.TLSVersion.TLSv1_3, "TLSv1.3")):
        assert handshake(gateway.port, authority, version, version)[0] == name
    with pytest.raises(ssl.SSLError):
        handshake(gateway.port, authority, ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1)
    with grpc.insecure_channel(f"127.0.0.1:{gateway.port}") as channel:
        assert refusal(channel, TOKEN)[0] == "UNAVAILABLE"


def test_a_renewed_certificate_is_shown_without_a_restart(gateway: GatewayProcess, authority: Authority) -> None:
    def serial() -> int:
        return x509.load_der_x509_certificate(
            handshake(gateway.port, authority, ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)[1]
        ).serial_number

    first = serial()
    with gateway.channel() as kept:
        assert who(kept, TOKEN).name == "local"
        certificate, key = authority.issue("localhost")
        second = x509.load_pem_x509_certificate(certificate.read_bytes()).serial_number
        assert first != second
        assert serial() == second
        # Half renewed: the key does not fit yet, and the pair of before goes on.
        whole = key.read_bytes()
        key.write_bytes(authority.issue("other")[1].read_bytes())
        assert serial() == second
        key.write_text("no key")
        assert serial() == second
        key.write_bytes(whole)
        assert serial() == second
        # Connections that there were go on throughout.
        assert who(kept, TOKEN).name == "local"
    assert "the certificate was renewed" in gateway.log
    assert "a renewed certificate cannot be used" in gateway.log


@pytest.mark.parametrize(
    ("name", "sans", "identity", "roles"),
    [
        ("p", [x509.DNSName("pacs.hospital.example")], "cert:dns:pacs.hospital.example", ["clinician"]),
        (
            "c",
            [x509.DNSName("any"), x509.UniformResourceIdentifier("spiffe://hospital/console")],
            "cert:uri:spiffe://hospital/console",
            ["operator"],
        ),
        ("old-viewer", [x509.DNSName("any")], "cert:cn:old-viewer", ["viewer"]),
    ],
)
def test_callers_are_told_by_their_certificates(
    gateway: GatewayProcess,
    authority: Authority,
    mutual_port: int,
    name: str,
    sans: list[x509.GeneralName],
    identity: str,
    roles: list[str],
) -> None:
    with gateway.channel(shown(authority, authority.issue(name, sans=sans)), mutual_port) as channel:
        found = who(channel)
        assert (found.name, list(found.roles), found.kind) == (identity, roles, found.KIND_CERTIFICATE)
        assert who(channel, None, ("x-oteo-caller", "local")).name == identity
        # A token says more than a certificate.
        assert who(channel, TOKEN).name == "local"
        assert refusal(channel, "wrong") == ("UNAUTHENTICATED", "TOKEN_INVALID")


def test_certificates_that_say_nothing_here(gateway: GatewayProcess, authority: Authority, mutual_port: int, tmp_path: Path) -> None:
    # A name in another place of the certificate than the one that was given roles.
    misplaced = authority.issue(
        "pacs.hospital.example", "misplaced", sans=[x509.DNSName("other"), x509.UniformResourceIdentifier("dns:pacs.hospital.example")]
    )
    with gateway.channel(shown(authority, misplaced), mutual_port) as channel:
        assert refusal(channel) == ("UNAUTHENTICATED", "CERTIFICATE_UNKNOWN")
    own = Authority(tmp_path / "evil", "test-ca")
    forged = own.issue("pacs.hospital.example")
    credentials = grpc.ssl_channel_credentials(authority.ca.read_bytes(), forged[1].read_bytes(), forged[0].read_bytes())
    with gateway.channel(credentials, mutual_port) as channel:
        assert refusal(channel)[0] == "UNAVAILABLE"
    with gateway.channel(port=mutual_port) as channel:
        assert refusal(channel, TOKEN)[0] == "UNAVAILABLE"
    # At the other address nobody is asked for a certificate, and one that is shown says nothing.
    with gateway.channel(shown(authority, authority.issue("old-viewer"))) as channel:
        assert refusal(channel) == ("UNAUTHENTICATED", "TOKEN_MISSING")
        token, _ = TokenFile(gateway.home / "tokens.json").create("a", ["viewer"])
        wait_for(lambda: "token:a" in _name(channel, token))


def _name(channel: grpc.Channel, token: str) -> str:
    try:
        return str(who(channel, token).name)
    except grpc.RpcError as error:
        return str(error)


def test_streams_and_refusals_of_callers_with_certificates(gateway: GatewayProcess, authority: Authority, mutual_port: int) -> None:
    with gateway.channel(shown(authority, authority.issue("old-viewer")), mutual_port) as channel:
        requests = [reflection_pb2.ServerReflectionRequest(list_services="")] * 2
        answers = list(reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter(requests), timeout=60))
        assert len(answers) == 2
        assert len(answers[0].list_services_response.service) > 5
        listed = deployment_pb2_grpc.DeploymentServiceStub(channel).ListDeployments(deployment_pb2.ListDeploymentsRequest(), timeout=60)
        assert list(listed.deployments) == []
        with pytest.raises(grpc.RpcError) as caught:
            deployment_pb2_grpc.DeploymentServiceStub(channel).DeleteDeployment(
                deployment_pb2.DeleteDeploymentRequest(name="deployments/a"), timeout=60
            )
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
        mine = operations_pb2_grpc.OperationsStub(channel).ListOperations(
            operations_pb2.ListOperationsRequest(name="operations/gateway"), timeout=60
        )
        assert list(mine.operations) == []


def test_callers_from_outside_may_have_tls_where_the_parts_speak_plainly(authority: Authority, tmp_path: Path) -> None:
    certificate, key = authority.issue("localhost", "outside")
    port = ports.free_port()
    with gateway_process(tmp_path, callers_listen=f"127.0.0.1:{port}", callers_cert=str(certificate), callers_key=str(key)) as gateway:
        with gateway.channel() as plain:
            assert who(plain, TOKEN).name == "local"
        with gateway.channel(grpc.ssl_channel_credentials(authority.ca.read_bytes()), port) as channel:
            assert who(channel, TOKEN).name == "local"
            assert refusal(channel) == ("UNAUTHENTICATED", "TOKEN_MISSING")
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            assert refusal(channel, TOKEN)[0] == "UNAVAILABLE"


def test_a_server_does_not_start_with_files_that_do_not_belong_together(authority: Authority, tmp_path: Path) -> None:
    (certificate, _), (_, key) = authority.issue("one"), authority.issue("two")
    for pair in ((certificate, key), (tmp_path / "missing", key), (key, certificate)):
        with pytest.raises(FailedPrecondition) as caught:
            CertificateFiles(*pair)
        assert caught.value.reason == "CERTIFICATE_UNUSABLE"
