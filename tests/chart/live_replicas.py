"""Replicas of the chart's Triton as processes: each with the rendered arguments on an address of its own, found by a name, ready when the rendered probe says so, ended by SIGTERM."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from charting import NAMESPACE, ROOT
from live_prometheus import Scraped
from running import Process, Site, container_of
from waiting import patient

from oteo_local import ports
from oteo_local.triton import TritonServer
from oteo_local.triton_env import TritonEnvironment, default_prefix

NAME = f"oteo-triton-all.{NAMESPACE}.svc.cluster.local"
"""By which the gateway finds them, ready or not."""
_PORTS = ("grpc", "http", "metrics")
_PROBE_SECONDS = 1.0
_READY = ROOT / "deploy/k8s/images/triton/oteo_triton_ready.py"


@dataclass
class TritonReplica:
    """One of them."""

    number: int
    address: str
    process: Process
    log: Path
    started: float
    ready: float = 0.0
    told_to_end: float = 0.0
    ended: float = 0.0
    status: int | None = None
    asked: subprocess.Popen[bytes] | None = None
    """The probe that is under way."""
    asked_at: float = 0.0
    answered: dict[str, int] = field(default_factory=dict)
    """Requests that each model has answered, as it counted them itself when last asked."""

    @property
    def pod(self) -> str:
        """Its name."""
        return f"oteo-triton-{self.number}"


class TritonReplicas:
    """What a Deployment of Triton keeps running, with the Service's name and Prometheus' targets kept up to date.

    Parameters
    ----------
    site
        Where it runs.
    names
        The file of `cluster_names`.
    told
        Called with what Prometheus is to scrape, whenever it changes.
    on_ready
        Called with a replica at the moment at which Kubernetes would take it for ready.
    """

    def __init__(
        self, site: Site, names: Path, told: Callable[[list[Scraped]], None], on_ready: Callable[[TritonReplica], None] = lambda _: None
    ) -> None:
        self._site, self._names, self._told, self.on_ready = site, names, told, on_ready
        self._environment = TritonEnvironment(default_prefix())
        self._environment.require()
        self._container = container_of(site.objects, "triton")
        # As in a cluster all have the same ports, each at its own address.
        self._here: dict[str, int] = {}
        for name in _PORTS:
            self._here[name] = ports.free_port(self._here.values())
        self.all: list[TritonReplica] = []
        self._publish()

    @property
    def url(self) -> str:
        """What the gateway is told, with the port that is free here."""
        return f"dns:///{NAME}:{self._here['grpc']}"

    def running(self) -> list[TritonReplica]:
        """Give those that have not been told to end, the oldest first."""
        return [replica for replica in self.all if not replica.told_to_end]

    def grpc_address(self, replica: TritonReplica) -> str:
        """Give where a replica serves the inference protocol."""
        return f"{replica.address}:{self._here['grpc']}"

    def scale(self, wanted: int) -> None:
        """Start what is missing, or tell the newest to end, as a ReplicaSet does."""
        for replica in reversed(self.running()[wanted:]):
            self._count(replica)
            replica.told_to_end = time.monotonic()
            # The chart has no preStop: the kubelet's SIGTERM is all that a replica is told.
            replica.process.process.terminate()
        while len(self.running()) < wanted:
            self._start()

    def _start(self) -> None:
        number = len(self.all) + 1
        address = f"127.0.0.{10 + number}"
        arguments = [
            re.sub(r"^--(grpc|http|metrics)-(address|port)=.*", lambda found: f"--{found[1]}-{found[2]}={self._place(found, address)}", one)
            for one in self._container["args"]
        ]
        part = f"triton-{number}"
        for folder in (part, "triton"):
            (self._site.folder / folder / "tmp").mkdir(parents=True, exist_ok=True)
        server = TritonServer("", self._here["grpc"], environment=self._environment, threads=1)
        # The embedded server has its backends elsewhere than NVIDIA's image, and its S3 library looks for a machine's role where there is none.
        command = [str(self._environment.server), *arguments, f"--backend-directory={self._environment.backends}"]
        variables = {**self._site.environment("triton"), **server.process_environment(), "AWS_EC2_METADATA_DISABLED": "true"}
        process = Process(self._site, part, self._container, command, variables)
        self._site.processes.append(process)
        self.all.append(TritonReplica(number, address, process, process.log, time.monotonic()))
        self._publish()

    def _place(self, found: re.Match[str], address: str) -> str:
        return address if found[2] == "address" else str(self._here[found[1]])

    def tend(self) -> None:
        """Do what a kubelet does: ask those that are not ready whether they are, and see who has ended."""
        for replica in self.all:
            if replica.ended:
                continue
            replica.status = replica.process.process.poll()
            if replica.status is not None:
                replica.ended = time.monotonic()
                assert replica.told_to_end, f"{replica.pod} ended by itself: {replica.log.read_text()[-2000:]}"
                # Not before: the Service publishes addresses that are not ready, so one that drains stays in DNS until it has gone.
                self._publish()
            elif not replica.ready and not replica.told_to_end and self._probe(replica):
                replica.ready = time.monotonic()
                self.on_ready(replica)

    def _probe(self, replica: TritonReplica) -> bool:
        """Run the rendered readiness probe, in the replica's own place and beside the test; tells whether the last one succeeded."""
        if replica.asked is not None:
            status = replica.asked.poll()
            if status is not None:
                replica.asked = None
            return status == 0
        if time.monotonic() < replica.asked_at + _PROBE_SECONDS:
            return False
        replica.asked_at = time.monotonic()
        name, url, *others = self._container["readinessProbe"]["exec"]["command"]
        assert (name, url) == ("oteo-triton-ready", "--url=http://127.0.0.1:8000")
        # Its folder is /tmp, which is each pod's own.
        state = self._site.folder / replica.process.part / "tmp/oteo-ready"
        command = [sys.executable, "-S", str(_READY), f"--url=http://{replica.address}:{self._here['http']}", f"--state={state}", *others]
        replica.asked = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return False

    def close(self) -> None:
        """Wait for the probes that are under way."""
        for replica in self.all:
            if replica.asked is not None:
                replica.asked.wait(patient(30))

    def _publish(self) -> None:
        there = [replica for replica in self.all if not replica.ended]
        fresh = self._names.with_suffix(".new")
        fresh.write_text(json.dumps({NAME: [replica.address for replica in there]}))
        fresh.rename(self._names)
        self._told([Scraped("oteo-triton", replica.pod, f"{replica.address}:{self._here['metrics']}") for replica in there])

    def count(self) -> None:
        """Ask those that run what they have answered."""
        for replica in self.running():
            if replica.ready:
                self._count(replica)

    def _count(self, replica: TritonReplica) -> None:
        with urllib.request.urlopen(f"http://{replica.address}:{self._here['metrics']}/metrics", timeout=60) as reply:
            text = reply.read().decode()
        found = re.findall(r'^nv_inference_request_success\{model="([^"]+)",version="\d+"\} (\d+)', text, re.MULTILINE)
        replica.answered = {model: int(count) for model, count in found}

    def ask(self, replica: TritonReplica, path: str, body: Any = None) -> Any:
        """Ask a replica over HTTP, past the gateway."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://{replica.address}:{self._here['http']}{path}", data=data)
        with urllib.request.urlopen(request, timeout=120) as reply:
            content = reply.read()
        return json.loads(content) if content else None
