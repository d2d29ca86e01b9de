"""Ray as the chart has KubeRay start it: the head's and a worker's parameters, the token, the probes, and a job of ours."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from charting import environment, of_kind, render
from waiting import patient, wait_for

from oteo_core.jobs import RayJobRunner
from oteo_core.jobs.runner import JobState
from oteo_local import ports, ray_head


@pytest.fixture
def short() -> Iterator[Path]:
    """Give a folder with a short path, for sockets."""
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a `ray start --block` and all that it started."""
    every = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for one in every:
        try:
            one.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue
    process.wait(patient(20))


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def options(parameters: dict[str, str], replaced: dict[str, int]) -> list[str]:
    """Give `ray start`'s options as KubeRay makes them of rayStartParams; ports are others here."""
    return [f"--{name}={replaced.get(name, value)}" for name, value in parameters.items()]


@pytest.mark.slow
def test_head_and_worker_start_as_rendered_answer_their_probes_and_run_a_job(tmp_path: Path, short: Path) -> None:
    objects = render("production")
    spec: dict[str, Any] = of_kind(objects, "RayCluster")[0]["spec"]
    token = secrets.token_hex(24)
    token_file = tmp_path / "auth_token"
    token_file.write_text(token)
    head = spec["headGroupSpec"]
    group = next(group for group in spec["workerGroupSpecs"] if group["rayStartParams"]["num-gpus"] == "0")
    variables = environment(head["template"]["spec"]["containers"][0], objects)
    # What KubeRay adds for authOptions, and from the container what concerns Ray.
    shared = {**os.environ, "RAY_AUTH_MODE": spec["authOptions"]["mode"], "RAY_AUTH_TOKEN": token, "OMP_NUM_THREADS": "1"}
    shared |= {name: value for name, value in variables.items() if name.startswith("RAY_")} | {"RAY_memory_monitor_refresh_ms": "0"}
    program = str(Path(sys.executable).with_name("ray"))
    numbers: dict[str, int] = {}
    for name in ray_head.PORTS:
        numbers[name] = ports.free_port(numbers.values())
    elsewhere = [f"{option}={numbers[name]}" for name, option in ray_head.PORTS.items() if option != "--metrics-export-port"]
    started: list[subprocess.Popen[bytes]] = []
    log = tmp_path / "ray.log"

    def wait(what: Callable[[], bool]) -> None:
        wait_for(what, 40, said=lambda: log.read_text()[-3000:], pause=0.5)

    def start(*arguments: str) -> None:
        with log.open("ab") as file:
            started.append(subprocess.Popen([program, "start", "--block", *arguments], env=shared, stdout=file, stderr=file, cwd=tmp_path))

    small = ["--object-store-memory=100000000", "--disable-usage-stats", "--min-worker-port=0", "--max-worker-port=0"]
    try:
        at = {"metrics-export-port": numbers["ray_metrics"]}
        start("--head", "--node-ip-address=127.0.0.1", f"--temp-dir={short}", *options(head["rayStartParams"], at), *elsewhere, *small)
        probe = head["template"]["spec"]["containers"][0]["readinessProbe"]["httpGet"]
        wait(lambda: answers(f"http://127.0.0.1:{numbers['ray_dashboard']}{probe['path']}"))
        agent, metrics, grpc_port, environments = ports.free_port(), ports.free_port(), ports.free_port(), ports.free_port()
        at = {"dashboard-agent-listen-port": agent, "metrics-export-port": metrics, "num-cpus": 1}
        start(
            f"--address=127.0.0.1:{numbers['ray']}",
            "--node-ip-address=127.0.0.1",
            f"--dashboard-agent-grpc-port={grpc_port}",
            f"--runtime-env-agent-port={environments}",
            *options(group["rayStartParams"], at),
            *small,
        )
        container = group["template"]["spec"]["containers"][0]
        for name in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert container[name]["httpGet"]["port"] == int(group["rayStartParams"]["dashboard-agent-listen-port"])
        wait(lambda: answers(f"http://127.0.0.1:{agent}{container['readinessProbe']['httpGet']['path']}"))
        wait(lambda: answers(f"http://127.0.0.1:{metrics}/metrics"))
        # Nobody without the token; a service's runner, which reads it from its file, may. The work of a job goes to the worker: the head takes none.
        assert not answers(f"http://127.0.0.1:{numbers['ray_dashboard']}/api/jobs/")
        runner = RayJobRunner(f"http://127.0.0.1:{numbers['ray_dashboard']}", token_file)
        work = "import ray; ray.init(); f = ray.remote(num_cpus=1)(lambda: 6 * 7); print('answer', ray.get(f.remote()))"
        runner.submit("o", 1, [sys.executable, "-c", work], {})
        wait(lambda: runner.status("o", 1).ended)
        assert runner.status("o", 1) is JobState.SUCCEEDED, runner.logs("o", 1)
        assert "answer 42" in runner.logs("o", 1)
    finally:
        for process in reversed(started):
            if process.poll() is None:
                end(process)
