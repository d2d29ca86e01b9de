"""A cluster's pods on this machine: replicas of what the chart renders, each with an address of its own, begun and ended as Kubernetes does."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from charting import NAMESPACE, Object, environment, named
from cluster_network import Balancer, Names
from grpc_health.v1 import health_pb2, health_pb2_grpc
from running import HOST, INHERITED, Site, container_of
from waiting import patient, wait_for

SERVICES = ("augment", "automl", "translate")
PORTS = {"gateway": 7000, "augment": 7001, "automl": 7002, "translate": 7003}
HEADLESS = {"gateway": "oteo-gateway-headless", **{part: f"oteo-{part}" for part in SERVICES}}
"""The Service that names a part's pods."""
LAG = 1.5
"""Seconds for which a pod that ends is still found, because the news of its end travels no faster."""


@dataclass
class Pod:
    """One replica: a process with an address of its own."""

    name: str
    part: str
    address: str
    port: int
    container: dict[str, Any]
    grace: float
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def target(self) -> str:
        """``host:port`` that it serves on."""
        return f"{self.address}:{self.port}"

    def ready(self) -> bool:
        """Ask as the kubelet does."""
        assert "grpc" in self.container["readinessProbe"]
        with grpc.insecure_channel(self.target, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            try:
                answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
            except grpc.RpcError:
                return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    def said(self) -> str:
        """Give the end of its log."""
        return self.log.read_text()[-4000:]

    def kill(self) -> None:
        """SIGKILL, as when its node dies."""
        self.process.kill()
        self.process.wait(patient(10))


@dataclass
class Cluster:
    """Pods of Oteo's services, found through DNS inside and through a Service outside; ``close`` ends all.

    Parameters
    ----------
    folder
        Volumes and logs.
    objects
        What the chart renders.
    secrets
        Values of Secrets, by ``name/key``.
    known
        Ports of what runs beside, by the Service's name and port there.
    more
        Variables of every pod beyond those rendered, for what stands elsewhere than in a cluster.
    """

    folder: Path
    objects: Sequence[Object]
    secrets: Mapping[str, str]
    known: dict[tuple[str, int], int]
    more: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.names = Names()
        self.site = Site(self.folder, self.objects, self.secrets, self.known)
        self.pods: dict[str, Pod] = {}
        self._found: set[str] = set()
        # Nobody else on this machine is likely to have them: a loopback network of 65536 is this cluster's.
        self._network = f"127.{random.SystemRandom().randint(64, 200)}.{random.SystemRandom().randint(1, 250)}"
        self._last = 0
        self.service = Balancer(lambda: [(pod.address, pod.port) for pod in self.of("gateway") if pod.name in self._found])
        self.address = self.service.address

    def of(self, part: str) -> list[Pod]:
        """Give a part's pods."""
        return [pod for pod in list(self.pods.values()) if pod.part == part]

    def environment(self, part: str, pod: str, address: str) -> dict[str, str]:
        """Give a pod's variables: those rendered, with addresses and volumes as they are here."""
        found = {name: os.environ[name] for name in INHERITED if name in os.environ}
        for name, value in environment(container_of(self.objects, part), self.objects).items():
            host = HOST.search(value)
            if name == "OTEO_METRICS_PORT":
                found[name] = str(self.site.port(f"oteo-{part}", int(value)))
            elif value.startswith("0.0.0.0:"):
                found[name] = f"{address}:{self.site.port(f'oteo-{part}', int(value.rpartition(':')[2]))}"
            elif host is not None and value.startswith("dns:///") and host[1] in HEADLESS.values():
                full = host[0].rpartition(":")[0]
                found[name] = f"dns://127.0.0.1:{self.names.port}/{full}:{self.site.port(host[1], int(host[2]))}"
            else:
                found[name] = self.site.here(value, pod)
        return {**found, **self.more}

    def start(self, part: str, name: str) -> Pod:
        """Start a pod, which nobody finds yet."""
        self._last += 1
        address = f"{self._network}.{self._last}"
        container = container_of(self.objects, part)
        for below in ("var/lib/oteo", "tmp"):
            (self.folder / name / below).mkdir(parents=True, exist_ok=True)
        command = [sys.executable if word == "python" else word for word in container["command"]]
        log = self.folder / f"{name}.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                command, env=self.environment(part, name, address), stdout=output, stderr=output, cwd=self.folder / name / "tmp"
            )
        kind = "Deployment" if part == "gateway" else "StatefulSet"
        grace = named(self.objects, kind, f"oteo-{part}")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
        port = self.site.port(f"oteo-{part}", PORTS[part])
        pod = self.pods[name] = Pod(name, part, address, port, container, float(grace), process, log)
        return pod

    def wait_ready(self, *pods: Pod, seconds: float = 40.0) -> None:
        """Wait until pods are ready, each for `seconds` as in `wait_for`, and let them be found."""

        def ready(pod: Pod) -> bool:
            assert pod.process.poll() is None, pod.said()
            return pod.ready()

        for pod in pods:
            wait_for(lambda pod=pod: ready(pod), seconds, said=pod.said, pause=0.3)
            self._found.add(pod.name)
            self._publish(pod.part)

    def _publish(self, part: str) -> None:
        found = [pod.address for pod in self.of(part) if pod.name in self._found]
        self.names.set(f"{HEADLESS[part]}.{NAMESPACE}.svc.cluster.local", found)

    def delete(self, pod: Pod) -> float:
        """End a pod as Kubernetes does: out of DNS a little later, the rendered hook, SIGTERM, and SIGKILL after the rendered grace; gives the seconds it took.

        Raises
        ------
        AssertionError
            It had to be killed.
        """
        begin = time.monotonic()
        (word, seconds) = pod.container["lifecycle"]["preStop"]["exec"]["command"]
        assert word == "sleep"
        assert float(seconds) > LAG
        time.sleep(LAG)
        self._found.discard(pod.name)
        self._publish(pod.part)
        time.sleep(float(seconds) - LAG)
        pod.process.terminate()
        left = pod.grace - (time.monotonic() - begin)
        try:
            status = pod.process.wait(left)
        except subprocess.TimeoutExpired:
            pod.kill()
            raise AssertionError(f"{pod.name} did not end within its grace: {pod.said()}") from None
        assert status == 0, pod.said()
        del self.pods[pod.name]
        return time.monotonic() - begin

    def forget(self, pod: Pod) -> None:
        """Take notice that a pod is dead."""
        self._found.discard(pod.name)
        self._publish(pod.part)
        self.pods.pop(pod.name, None)

    def roll(self, part: str) -> None:
        """Replace a part's pods one after the other: a Deployment's new pod is ready before an old one goes, a StatefulSet's comes after it."""
        for pod in sorted(self.of(part), key=lambda one: one.name, reverse=True):
            if part == "gateway":
                stem, _, number = pod.name.rpartition("-")
                self.wait_ready(self.start(part, f"{stem}-{int(number) + 2}"))
                self.delete(pod)
            else:
                self.delete(pod)
                self.wait_ready(self.start(part, pod.name))

    def close(self) -> None:
        """End everything."""
        self.service.close()
        for pod in list(self.pods.values()):
            pod.process.terminate()
        for pod in list(self.pods.values()):
            try:
                pod.process.wait(15)
            except subprocess.TimeoutExpired:
                pod.kill()
        self.names.close()
