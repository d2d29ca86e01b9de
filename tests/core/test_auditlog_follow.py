"""Audit messages sent to a receiver over TLS: each arrives, in order, again after a break, and to nobody else."""

from __future__ import annotations

import datetime
import ipaddress
import json
import re
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from waiting import patient

from oteo_core.auditlog import AuditLog, AuditSettings, Event
from oteo_core.auditlog.command import main
from oteo_core.auditlog.follow import Follower, Reader, tls
from oteo_core.auditlog.segments import segments_of


def certificate(folder: Path) -> tuple[Path, Path]:
    """Make a certificate for this machine's loopback address, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "audit repository")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder / "cert.pem", folder / "key.pem"


class Repository:
    """A receiver: takes connections, and the messages of each apart by their lengths."""

    def __init__(self, folder: Path) -> None:
        self.certificate, key = certificate(folder)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, key)
        self._listener = context.wrap_socket(socket.create_server(("127.0.0.1", 0)), server_side=True)
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.messages: list[bytes] = []
        self.changed = threading.Condition()
        self._connections: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except ssl.SSLError:
                continue
            except OSError:
                return
            self._connections.append(connection)
            threading.Thread(target=self._take, args=(connection,), daemon=True).start()

    def _take(self, connection: socket.socket) -> None:
        try:
            with connection, connection.makefile("rb") as stream:
                while True:
                    size = b""
                    while not size.endswith(b" "):
                        byte = stream.read(1)
                        if not byte:
                            return
                        size += byte
                    message = stream.read(int(size))
                    with self.changed:
                        self.messages.append(message)
                        self.changed.notify_all()
        except OSError:
            return

    def numbers(self, count: int) -> list[int]:
        """Wait for so many messages, and give the numbers of their records."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.messages) >= count, patient(20)), len(self.messages)
            return [int(re.findall(rb'ParticipantObjectID="door/(\d+)"', message)[0]) for message in self.messages]

    def cut(self) -> None:
        """Break all connections."""
        for connection in self._connections:
            connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Listen no more."""
        self._listener.close()


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    made = Repository(tmp_path)
    yield made
    made.close()


@pytest.fixture
def log(tmp_path: Path) -> Iterator[AuditLog]:
    made = AuditLog(AuditSettings(home=tmp_path, audit_instance="door", audit_segment_bytes=4096))
    made.start()
    yield made
    made.close()


def write(log: AuditLog, count: int) -> None:
    for _ in range(count):
        log.append(Event("call", "test.v1.Test/Write", actor="somebody", code="OK"))


def test_every_record_is_sent_once_also_over_files_and_restarts(tmp_path: Path, log: AuditLog, repository: Repository) -> None:
    def follower() -> Follower:
        return Follower(
            tmp_path / "audit", tmp_path / "sent.json", tls(repository.address, ca=repository.certificate, certificate=None, key=None)
        )

    first = follower()
    write(log, 19)
    assert first.send_new() == 20
    write(log, 20)
    assert first.send_new() == 20
    assert first.send_new() == 0
    assert len(segments_of(tmp_path / "audit/door")) > 3
    first.close()
    write(log, 5)
    second = follower()
    assert second.send_new() == 5
    second.close()
    assert repository.numbers(45) == list(range(45))


def test_what_a_broken_connection_may_have_lost_is_sent_again(tmp_path: Path, log: AuditLog, repository: Repository) -> None:
    now = [0.0]
    follower = Follower(
        tmp_path / "audit",
        tmp_path / "sent.json",
        tls(repository.address, ca=repository.certificate, certificate=None, key=None),
        clock=lambda: now[0],
    )
    write(log, 9)
    follower.send_new()
    now[0] = 60.0
    follower.send_new()
    assert json.loads((tmp_path / "sent.json").read_text()) == {"door": 9}
    write(log, 10)
    follower.send_new()
    repository.numbers(20)
    repository.cut()

    def until_it_is_noticed() -> None:
        for _ in range(100):
            write(log, 20)
            follower.send_new()

    with pytest.raises(OSError):
        until_it_is_noticed()
    follower.send_new()
    last = log.append(Event("call", "test.v1.Test/Write", code="OK"))
    follower.send_new()
    follower.close()
    with repository.changed:
        assert repository.changed.wait_for(lambda: last in repository.numbers(0), patient(20))
    assert set(repository.numbers(0)) == set(range(last + 1)), "none is left out"


def test_nothing_is_sent_to_a_receiver_that_cannot_show_who_it_is(tmp_path: Path, log: AuditLog, repository: Repository) -> None:
    write(log, 3)
    stranger = tls(repository.address, ca=None, certificate=None, key=None)
    with pytest.raises(ssl.SSLCertVerificationError):
        Follower(tmp_path / "audit", tmp_path / "sent.json", stranger).send_new()
    assert repository.messages == []
    assert not (tmp_path / "sent.json").exists()


def test_a_line_that_is_not_whole_yet_is_waited_for(tmp_path: Path) -> None:
    folder = tmp_path / "audit/door"
    folder.mkdir(parents=True)
    path = folder / "0000000000000000.jsonl"
    reader = Reader(tmp_path / "audit", {})
    path.write_bytes(b'{"seq":0}\n{"se')
    assert [record["seq"] for record in reader.new()] == [0]
    path.write_bytes(b'{"seq":0}\n{"seq":1}\n')
    assert [record["seq"] for record in reader.new()] == [1]


def test_the_command_sends_what_there_is(
    tmp_path: Path, log: AuditLog, repository: Repository, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OTEO_HOME", str(tmp_path))
    write(log, 4)
    arguments = ["follow", "--to", repository.address, "--ca", str(repository.certificate), "--once"]
    assert main(arguments) == 0
    assert "5 messages sent" in capsys.readouterr().err
    assert main(arguments) == 0
    assert "0 messages sent" in capsys.readouterr().err
    assert repository.numbers(5) == list(range(5))
