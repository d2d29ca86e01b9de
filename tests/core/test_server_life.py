"""A server's life: health, reflection, metrics, TLS, and how it ends."""

from __future__ import annotations

import datetime
import ipaddress
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import urllib.request

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from live_server import live_server
from waiting import patient, wait_for

from oteo_core.errors import FailedPrecondition, Unavailable
from oteo_core.server import build_server, sync_channel
from oteo_core.settings import CoreSettings
from oteo_local.ports import free_port
from oteo_protos.augment.v1 import dataset_pb2, dataset_pb2_grpc

TOKEN = "a-token-for-the-tests"
SERVICE = "oteo.augment.v1.DatasetService"


class Datasets(dataset_pb2_grpc.DatasetServiceServicer):
    """Answers slowly when it is asked for it."""

    began = threading.Event()

    def GetDataset(self, request, context):
        if request.name == "datasets/slow":
            self.began.set()
            time.sleep(0.7)
        return dataset_pb2.Dataset(name=request.name)


def register(server):
    """Add the servicer."""
    dataset_pb2_grpc.add_DatasetServiceServicer_to_server(Datasets(), server)
    return (SERVICE,)


def _settings(tmp_path, **more):
    return CoreSettings(home=tmp_path, **{"token": TOKEN, **more})


def _get(channel, name="x", timeout=60):
    return dataset_pb2_grpc.DatasetServiceStub(channel).GetDataset(dataset_pb2.GetDatasetRequest(name=f"datasets/{name}"), timeout=timeout)


def test_health_needs_no_token_and_knows_each_service(tmp_path):
    with live_server(_settings(tmp_path), register) as server, grpc.insecure_channel(server.address) as plain:
        stub = health_pb2_grpc.HealthStub(plain)
        for name in ("", SERVICE):
            assert stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=60).status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.RpcError) as caught:
            stub.Check(health_pb2.HealthCheckRequest(service="no.Such"), timeout=60)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_reflection_tells_the_services_and_their_messages(tmp_path):
    settings = _settings(tmp_path)
    with live_server(settings, register) as server, sync_channel(server.address, settings) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        assert SERVICE in database.get_services()
        file = database.FindFileContainingSymbol(SERVICE)
        assert "ImportDatasetRequest" in {message.name for message in file.message_type}
        with grpc.insecure_channel(server.address) as plain, pytest.raises(grpc.RpcError) as caught:
            ProtoReflectionDescriptorDatabase(plain).get_services()
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_draining_lets_a_call_in_flight_end_and_says_not_serving(tmp_path):
    settings = _settings(tmp_path)
    with live_server(settings, register) as server, sync_channel(server.address, settings) as channel:
        seen = []

        def watch():
            with grpc.insecure_channel(server.address) as plain:
                try:
                    for answer in health_pb2_grpc.HealthStub(plain).Watch(health_pb2.HealthCheckRequest(service=SERVICE), timeout=60):
                        seen.append(answer.status)
                except grpc.RpcError:
                    return

        watcher = threading.Thread(target=watch)
        watcher.start()
        wait_for(lambda: seen, 10, pause=0.01)
        Datasets.began.clear()
        stub = dataset_pb2_grpc.DatasetServiceStub(channel)
        call = stub.GetDataset.future(dataset_pb2.GetDatasetRequest(name="datasets/slow"), timeout=60)
        assert Datasets.began.wait(patient(5))
        stopped = server.stop(grace=5.0)
        assert call.result(patient(5)).name == "datasets/slow"
        stopped.result(patient(10))
        watcher.join(patient(10))
        assert seen == [health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING]
        with pytest.raises(grpc.RpcError) as caught:
            _get(channel, timeout=2)
        assert caught.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


def test_no_token_no_server(tmp_path):
    with pytest.raises(FailedPrecondition, match="OTEO_TOKEN") as caught:
        build_server(CoreSettings(home=tmp_path), service="test", register=register, listen="127.0.0.1:0")
    assert caught.value.reason == "NO_TOKEN"


def test_a_taken_port_is_said_plainly(tmp_path):
    settings = _settings(tmp_path)
    with live_server(settings, register) as server:

        async def second():
            build_server(settings, service="test", register=register, listen=server.address)

        with pytest.raises(Unavailable, match=server.address):
            server.run(second()).result(patient(10))


def test_anonymous_servers_are_possible_when_asked_for(tmp_path):
    with (
        live_server(CoreSettings(home=tmp_path, allow_anonymous=True), register) as server,
        grpc.insecure_channel(server.address) as plain,
    ):
        assert _get(plain).name == "datasets/x"


class Authority:
    """A certificate authority of one test."""

    def __init__(self, folder):
        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = self._sign("authority", self.key.public_key(), ca=True)
        self.file = folder / "ca.pem"
        self.file.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    def _sign(self, name, public, *, ca=False):
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        issuer = subject if ca else self.certificate.subject
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=5))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(
                x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
            )
            .sign(self.key, hashes.SHA256())
        )

    def issue(self, name):
        """Give the files of a certificate and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate, private = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        certificate.write_bytes(self._sign(name, key.public_key()).public_bytes(serialization.Encoding.PEM))
        private.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
        return certificate, private


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


def test_tls(tmp_path, authority):
    certificate, key = authority.issue("server")
    settings = _settings(tmp_path, tls_cert=certificate, tls_key=key, tls_ca=authority.file)
    with live_server(settings, register) as server:
        with sync_channel(server.address, settings) as channel:
            assert _get(channel).name == "datasets/x"
        with grpc.insecure_channel(server.address) as plain, pytest.raises(grpc.RpcError):
            _get(plain, timeout=2)


def test_mutual_tls_wants_a_certificate_of_the_right_authority(tmp_path, authority):
    certificate, key = authority.issue("server")
    settings = _settings(tmp_path, tls_cert=certificate, tls_key=key, tls_ca=authority.file, tls_client_ca=authority.file)
    with live_server(settings, register) as server:
        with sync_channel(server.address, settings) as channel:
            assert _get(channel).name == "datasets/x"
        without = settings.model_copy(update={"tls_client_ca": None})
        with sync_channel(server.address, without) as channel, pytest.raises(grpc.RpcError) as caught:
            _get(channel, timeout=2)
        assert caught.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
        folder = tmp_path / "other"
        folder.mkdir()
        foreign_certificate, foreign_key = Authority(folder).issue("client")
        foreign = settings.model_copy(update={"tls_cert": foreign_certificate, "tls_key": foreign_key})
        with sync_channel(server.address, foreign) as channel, pytest.raises(grpc.RpcError):
            _get(channel, timeout=2)


PROGRAM = """
import time
from oteo_core.server import serve
from oteo_core.settings import CoreSettings
from oteo_protos.augment.v1 import dataset_pb2, dataset_pb2_grpc

class Datasets(dataset_pb2_grpc.DatasetServiceServicer):
    def GetDataset(self, request, context):
        time.sleep(2.0 if request.name == "datasets/slow" else 0)
        return dataset_pb2.Dataset(name=request.name)

def register(server):
    dataset_pb2_grpc.add_DatasetServiceServicer_to_server(Datasets(), server)
    return ("oteo.augment.v1.DatasetService",)

serve(CoreSettings(), service="augment", register=register, on_stop=[lambda: print("hook", flush=True)])
"""


def test_sigterm_drains_the_process_and_metrics_tell_of_its_calls(tmp_path):
    port, metrics = free_port(), free_port()
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("OTEO_")},
        "OTEO_HOME": str(tmp_path),
        "OTEO_TOKEN": TOKEN,
        "OTEO_AUGMENT_ADDRESS": f"127.0.0.1:{port}",
        "OTEO_METRICS_PORT": str(metrics),
    }
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PROGRAM)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        settings = _settings(tmp_path)
        with sync_channel(f"127.0.0.1:{port}", settings) as channel:
            grpc.channel_ready_future(channel).result(patient(30))
            stub = dataset_pb2_grpc.DatasetServiceStub(channel)
            assert _get(channel).name == "datasets/x"
            with pytest.raises(grpc.RpcError):
                stub.GetDataset(dataset_pb2.GetDatasetRequest(name="no"), timeout=60)

            def told():
                with urllib.request.urlopen(f"http://127.0.0.1:{metrics}/metrics", timeout=60) as page:
                    return page.read().decode()

            text = told()
            method = f'method="/{SERVICE}/GetDataset"'
            assert f'oteo_rpc_handled_total{{code="OK",{method}}} 1.0' in text
            assert f'oteo_rpc_handled_total{{code="INVALID_ARGUMENT",{method}}} 1.0' in text
            assert "oteo_rpc_seconds_bucket{le=" in text
            assert f"oteo_rpc_in_flight{{{method}}} 0.0" in text
            call = stub.GetDataset.future(dataset_pb2.GetDatasetRequest(name="datasets/slow"), timeout=60)
            wait_for(lambda: f"oteo_rpc_in_flight{{{method}}} 1.0" in told(), pause=0.01)
            process.send_signal(signal.SIGTERM)
            assert call.result(patient(5)).name == "datasets/slow"
        out, log = process.communicate(timeout=patient(15))
        assert process.returncode == 0, log
        assert out == "hook\n"
        assert [word for word in ("serving", "draining", "stopped") if f'"event": "{word}"' in log] == ["serving", "draining", "stopped"]
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(patient(10))


def test_a_page_token_is_bound_to_its_query():
    from oteo_core.errors import InvalidArgument
    from oteo_core.pagination import decode_token, paginate

    request = dataset_pb2.ListSamplesRequest(parent="datasets/x", class_name="cat")
    items = [f"{n:03}" for n in range(25)]
    got, token = [], ""
    while True:
        page, token = paginate(request, items, str, token=token, size=10)
        got += page
        if not token:
            break
        items = [item for item in items if item != page[-1]]
    assert got == [f"{n:03}" for n in range(25)]
    _, token = paginate(request, items, str, token="", size=10)
    for other, bad in ((dataset_pb2.ListSamplesRequest(parent="datasets/y"), token), (request, "rubbish"), (request, "W10")):
        with pytest.raises(InvalidArgument) as caught:
            decode_token(other, bad)
        assert (caught.value.reason, caught.value.field) == ("BAD_PAGE_TOKEN", "page_token")
