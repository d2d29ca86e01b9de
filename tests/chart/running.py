"""Containers that the chart renders, run as processes on this machine: the same command and the same variables, with other addresses."""

from __future__ import annotations

import datetime
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from types import TracebackType
from typing import Any

import grpc
from charting import NAMESPACE, Object, environment, named, of_kind
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from grpc_health.v1 import health_pb2, health_pb2_grpc
from waiting import patient, wait_for

from oteo_local import ports

HOST = re.compile(rf"([a-z0-9-]+)\.{NAMESPACE}\.svc\.cluster\.local:(\d+)")
INHERITED = ("PATH", "PYTHONPATH", "LANG", "LD_LIBRARY_PATH", "OMP_NUM_THREADS")


def container_of(objects: Sequence[Object], part: str) -> dict[str, Any]:
    """Give the container of a part of Oteo."""
    for kind, path in (("Deployment", ()), ("StatefulSet", ()), ("Job", ()), ("CronJob", ("jobTemplate", "spec"))):
        for found in of_kind(objects, kind):
            if found["metadata"]["name"] == f"oteo-{part}":
                spec = found["spec"]
                for step in path:
                    spec = spec[step]
                container: dict[str, Any] = spec["template"]["spec"]["containers"][0]
                return container
    raise AssertionError(f"the chart has no {part}")


@dataclass
class Site:
    """What stands in for a cluster: folders for volumes, ports for Services, values for Secrets."""

    folder: Path
    objects: Sequence[Object]
    secrets: Mapping[str, str]
    ports: dict[tuple[str, int], int] = field(default_factory=dict)
    processes: list[Process] = field(default_factory=list)

    def port(self, service: str, port: int) -> int:
        """Give the port here of a Service's port there."""
        # The gateway has two Services, Triton too.
        key = (service.removesuffix("-headless").removesuffix("-all"), port)
        if key not in self.ports:
            self.ports[key] = ports.free_port()
        return self.ports[key]

    def here(self, value: str, part: str) -> str:
        """Translate a rendered value: addresses, paths in volumes, listening addresses."""
        if value.startswith("secret:"):
            return self.secrets[value.removeprefix("secret:")]
        value = HOST.sub(lambda found: f"127.0.0.1:{self.port(found[1], int(found[2]))}", value)
        value = re.sub(r"^(?:0\.0\.0\.0|localhost):(\d+)$", lambda found: f"127.0.0.1:{self.port(f'oteo-{part}', int(found[1]))}", value)
        return self.path(value, part)

    def path(self, value: str, part: str) -> str:
        """Translate a path: volumes of each pod's own, then those that all share."""
        own = re.sub(r"^(/etc/oteo/tls|/var/lib/oteo|/tmp)(?=/|$)", rf"{self.folder}/{part}\1", value)
        return own if own != value else re.sub(r"^/etc/oteo(?=/|$)", f"{self.folder}/etc/oteo", value)

    def environment(self, part: str) -> dict[str, str]:
        """Give a container's variables, translated."""
        found = environment(container_of(self.objects, part), self.objects)
        if "OTEO_METRICS_PORT" in found:
            found["OTEO_METRICS_PORT"] = str(self.port(f"oteo-{part}", int(found["OTEO_METRICS_PORT"])))
        inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
        return {**inherited, **{name: self.here(value, part) for name, value in found.items()}}

    def write(self, path: str, text: str, part: str = "") -> None:
        """Put a file where a volume would have it."""
        file = self.folder / part / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def start(self, part: str) -> Process:
        """Start a part."""
        container = container_of(self.objects, part)
        command = [sys.executable if word == "python" else word for word in container["command"]]
        for folder in ("var/lib/oteo", "tmp"):
            (self.folder / part / folder).mkdir(parents=True, exist_ok=True)
        process = Process(self, part, container, command, self.environment(part))
        self.processes.append(process)
        return process

    def __enter__(self) -> Site:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for process in reversed(self.processes):
            process.end()


class Process:
    """A part that runs."""

    def __init__(self, site: Site, part: str, container: dict[str, Any], command: list[str], variables: dict[str, str]) -> None:
        self.site, self.part, self.container, self.variables = site, part, container, variables
        self.log = site.folder / f"{part}.log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, env=variables, stdout=log, stderr=log, cwd=site.folder / part / "tmp")

    def probe(self, name: str = "readinessProbe") -> bool:
        """Ask as the cluster would."""
        probe = self.container[name]
        if "grpc" in probe:
            with grpc.insecure_channel(f"127.0.0.1:{self.site.port(f'oteo-{self.part}', probe['grpc']['port'])}") as channel:
                try:
                    answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
                except grpc.RpcError:
                    return False
            return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
        command = [sys.executable if word == "python" else self.site.here(word, self.part) for word in probe["exec"]["command"]]
        return subprocess.run(command, env=self.variables, capture_output=True, check=False).returncode == 0

    def wait(self, seconds: float = 60.0) -> None:
        """Wait until the readiness probe succeeds, `seconds` as in `wait_for`."""

        def ready() -> bool:
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            return self.probe()

        wait_for(ready, seconds, said=lambda: self.log.read_text()[-3000:], pause=0.3)

    def end(self, seconds: float = 30.0) -> int:
        """End it as the cluster would; gives its status."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(patient(seconds))
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait(patient(10))


def issue(site: Site) -> Path:
    """Do what cert-manager does: a certificate of one CA for every Certificate, where the pods' volumes have it. Gives the CA's file."""
    now = datetime.datetime.now(datetime.UTC)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Oteo's tests")])

    def begin(subject: x509.Name) -> x509.CertificateBuilder:
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(name).serial_number(x509.random_serial_number())
        return builder.not_valid_before(now - datetime.timedelta(minutes=5)).not_valid_after(now + datetime.timedelta(days=1))

    root = begin(name).public_key(key.public_key()).add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    authority = root.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()
    for found in of_kind(site.objects, "Certificate"):
        part = found["metadata"]["name"].removeprefix("oteo-")
        own = ec.generate_private_key(ec.SECP256R1())
        # The processes here are called by this machine's address; in a cluster only the names are.
        names: list[x509.GeneralName] = [*(x509.DNSName(one) for one in found["spec"]["dnsNames"]), x509.IPAddress(ip_address("127.0.0.1"))]
        builder = begin(x509.Name([])).public_key(own.public_key()).add_extension(x509.SubjectAlternativeName(names), critical=True)
        certificate = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()
        private = own.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode()
        for file, text in (("tls.crt", certificate), ("tls.key", private), ("ca.crt", authority)):
            site.write(f"/etc/oteo/tls/{file}", text, part)
    file = site.folder / "ca.crt"
    file.write_text(authority)
    return file


def script(objects: Sequence[Object], config_map: str, name: str, folder: Path) -> Path:
    """Write a script of a ConfigMap down."""
    file = folder / name
    file.write_text(named(objects, "ConfigMap", config_map)["data"][name])
    return file
