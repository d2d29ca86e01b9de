"""A site of two gateways and two replicas of each service, as the chart renders it, on one PostgreSQL, one artifact store, one Ray and one Triton."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import psutil
import psycopg
import psycopg.rows
from charting import render
from cluster import SERVICES, Cluster, Pod
from engines import Postgres, RayHead
from gateway_calls import Calls
from gateway_support import publish_model
from google.longrunning import operations_pb2
from waiting import patient, wait_for

from oteo_core.artifacts import ArtifactStore
from oteo_local import triton
from oteo_local.triton import RunningTriton
from oteo_local.triton_env import TritonEnvironment, default_prefix

TOKEN = "a-token-of-two-of-each"
METADATA = (("authorization", f"Bearer {TOKEN}"),)
DRAIN = 6
"""Seconds that calls in flight are given, where the chart has 20: what the tests leave open is cut sooner."""
CONNECTION_AGE = 20
VALUES = (
    *(f"{part}.replicas=2" for part in ("gateway", *SERVICES)),
    *(f"{part}.drainSeconds={DRAIN}" for part in ("gateway", *SERVICES)),
    f"traffic.maxConnectionAgeSeconds={CONNECTION_AGE}",
    'automl.settings={"mlflow_timeout":1}',
)
IMPORT_SECONDS = 40.0
"""Until an import of some images has ended, as in `wait_for`."""
AUDIT_KEY = "ab" * 32


@dataclass
class Pair:
    """The site, and the way to it."""

    cluster: Cluster
    postgres: Postgres
    url: str
    ray: RayHead
    triton: RunningTriton
    store: ArtifactStore

    def calls(self, address: str = "") -> Calls:
        """Give calls to the Service of both gateways, or to one address."""
        return Calls(address or self.cluster.address, TOKEN)

    def row(self, name: str) -> dict[str, Any]:
        """Give an operation's row."""
        with psycopg.connect(self.url, row_factory=psycopg.rows.dict_row) as connection:
            found = connection.execute("SELECT * FROM operations WHERE id = %s", [name.removeprefix("operations/")]).fetchone()
        assert found is not None, name
        return found

    def leader(self, name: str) -> Pod:
        """Give the pod that holds an operation's lease."""
        owner = str(self.row(name)["lease_owner"])
        for pod in self.cluster.pods.values():
            if f"-{pod.process.pid}-" in owner:
                return pod
        raise AssertionError(f"nobody who runs holds {name}: {owner!r}")

    def jobs(self, name: str) -> list[str]:
        """Give the ids under which Ray was ever asked to run an operation."""
        token = self.ray.token_path.read_text()
        request = urllib.request.Request(f"{self.ray.address}/api/jobs/", headers={"Authorization": f"Bearer {token}"})
        with urllib.request.urlopen(request, timeout=120) as answer:
            listed = json.load(answer)
        identity = name.removeprefix("operations/")
        return sorted(str(job["submission_id"]) for job in listed if str(job["submission_id"] or "").startswith(f"{identity}-"))

    def driver(self, name: str, attempt: int = 1, seconds: float = IMPORT_SECONDS) -> psutil.Process:
        """Wait for the process of an attempt."""
        identity = name.removeprefix("operations/")
        marks = [f"oteo_{identity.partition('-')[0]}.job", identity, str(attempt)]

        def running() -> list[psutil.Process]:
            return [process for process in psutil.process_iter(["cmdline"]) if (process.info["cmdline"] or [])[-3:] == marks]

        return wait_for(running, seconds, said=lambda: self.row(name))[0]

    def kill(self, pod: Pod) -> None:
        """Kill a pod with SIGKILL; its name stays in DNS for a while, as in a cluster."""
        pod.kill()

    def replace(self, pod: Pod) -> Pod:
        """Start a pod anew that is dead, and wait until it is ready."""
        self.cluster.forget(pod)
        fresh = self.cluster.start(pod.part, pod.name)
        self.cluster.wait_ready(fresh)
        return fresh


def build_pair(folder: Path, postgres: Postgres, stack: ExitStack) -> Pair:
    """Start all of it below a folder; ``stack`` ends it."""
    TritonEnvironment(default_prefix()).build()
    ray = RayHead(folder, cpus=2)
    stack.callback(ray.stop)
    ray.start()
    served = stack.enter_context(triton.start(folder / "model-repository", threads=1, timeout=patient(30)))
    url = postgres.new_url()
    secrets = {"oteo-database/url": url, "oteo-s3/accessKey": "none", "oteo-s3/secretKey": "none"}
    known = {("oteo-ray-head-svc", 8265): ray.ports["ray_dashboard"]}
    known["oteo-triton", 8001] = int(served.address.rpartition(":")[2])
    # A folder in the place of the bucket: an object store written in Python would take more of this machine than all that is tested.
    more = {
        "OTEO_ARTIFACTS": f"file://{folder}/artifacts",
        "OTEO_MODEL_REPOSITORY": f"file://{folder}/model-repository",
        "OTEO_JOB_PYTHON": sys.executable,
    }
    cluster = Cluster(folder, render("single-node-cpu", *VALUES), secrets, known, more)
    stack.callback(cluster.close)
    cluster.site.write("/etc/oteo/token/token", f"{TOKEN}\n")
    cluster.site.write("/etc/oteo/audit/key", AUDIT_KEY)
    cluster.site.write("/etc/oteo/deidentification/key", "cd" * 32)
    cluster.site.write("/etc/oteo/ray/auth_token", ray.token_path.read_text())
    store = ArtifactStore(more["OTEO_ARTIFACTS"])
    publish_model(store, "colours")
    migrated = subprocess.run(
        [sys.executable, "-m", "oteo_gateway.migrate"],
        env={**os.environ, "OTEO_HOME": str(folder / "migrations"), "OTEO_DATABASE_URL": url},
        capture_output=True,
        text=True,
        check=False,
        timeout=patient(40),
    )
    assert migrated.returncode == 0, migrated.stderr
    # One after the other: eight interpreters that import at once take longer on few cores.
    for part in (*SERVICES, "gateway"):
        cluster.wait_ready(*(cluster.start(part, f"{part}-{number}") for number in range(2)))
    return Pair(cluster, postgres, url, ray, served, store)


def ended(pair: Pair, calls: Calls, name: str) -> operations_pb2.Operation:
    """Wait for an operation's end, however often nobody answers meanwhile."""

    def done() -> operations_pb2.Operation | None:
        try:
            found = calls.operations.GetOperation(operations_pb2.GetOperationRequest(name=name), timeout=60)
        except grpc.RpcError as error:
            if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                raise
            return None
        return found if found.done else None

    return wait_for(done, IMPORT_SECONDS, said=lambda: pair.row(name), pause=1.0)


def begun_once(pair: Pair, name: str) -> None:
    """Check that an operation had one job, whoever was killed; another only where its reconciler says that the first one had fallen silent."""
    identity = name.removeprefix("operations/")
    logs = [file.read_text().splitlines() for file in pair.cluster.folder.glob("*.log")]
    silent = sum(identity in line and "gave no sign of life" in line for lines in logs for line in lines)
    attempts = pair.row(name)["attempt"]
    assert pair.jobs(name) == [f"{identity}-{number}" for number in range(1, attempts + 1)]
    # A machine that is starved stops a job for so long that it is taken for dead; nothing else may begin it again.
    assert attempts <= 1 + silent
