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
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
from charting import PRESETS, environment, named, of_kind, render
from waiting import patient, wait_for

from oteo_core.jobs import AUTO, RayJobRunner, Resources, Wanted
from oteo_core.jobs.resources import place
from oteo_core.jobs.runner import JobState
from oteo_core.settings import CoreSettings
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


def workers_known(objects: Sequence[Any], monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, int]]:
    """Give the kinds of workers that translate is told can come."""
    container = named(objects, "StatefulSet", "oteo-translate")["spec"]["template"]["spec"]["containers"][0]
    with monkeypatch.context() as patched:
        for variable, value in environment(container, objects).items():
            patched.setenv(variable, "postgresql://u:p@h/d" if variable == "OTEO_DATABASE_URL" else value)
        return CoreSettings().ray_workers


@pytest.mark.parametrize("preset", PRESETS)
def test_services_know_the_workers_that_can_come_from_zero(preset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = render(preset)
    spec: dict[str, Any] = of_kind(objects, "RayCluster")[0]["spec"]
    parameters = [group["rayStartParams"] for group in spec["workerGroupSpecs"]]
    known = workers_known(objects, monkeypatch)
    assert known == [(float(one["num-cpus"]), int(one["num-gpus"])) for one in parameters]
    # A training finds its place there while nothing runs but the head, which takes no work.
    head = Resources(float(spec["headGroupSpec"]["rayStartParams"]["num-cpus"]))
    placing = place(Wanted(1.0, AUTO), [head, *(Resources(cpus, gpus) for cpus, gpus in known)])
    assert placing.resources == Resources(1.0, min(1, max(gpus for _, gpus in known)))
    # And may wait there longer than the quarter of an hour after which Ray gives a job up.
    container = spec["headGroupSpec"]["template"]["spec"]["containers"][0]
    assert int(environment(container, objects)["RAY_JOB_START_TIMEOUT_SECONDS"]) > 12 * 3600


def test_a_group_that_never_comes_is_not_counted_on(monkeypatch: pytest.MonkeyPatch) -> None:
    off = "ray.autoscaler.enabled=false"
    assert workers_known(render("production", off), monkeypatch) == [], "both groups begin from zero, and nobody starts a worker"
    assert workers_known(render("single-node-cpu"), monkeypatch) == [(2.0, 0)]


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
        at = {"dashboard-agent-listen-port": agent, "metrics-export-port": metrics, "num-cpus": 1, "num-gpus": 1}
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
        # A driver that takes something goes to the worker too, and is given its GPU (Ray is told of one; none need be there).
        placing = place(Wanted(1.0, AUTO), runner.nodes())
        assert placing.resources == Resources(1.0, 1)
        runner.submit("p", 1, [sys.executable, "-c", "import os; print('GPU', os.environ['CUDA_VISIBLE_DEVICES'])"], {}, placing.resources)
        wait(lambda: runner.status("p", 1).ended)
        assert "GPU 0" in runner.logs("p", 1)
        places = {name: runner._connection().get_job_info(f"{name}-1").driver_node_id for name in ("o", "p")}
        assert places["o"] != places["p"]
    finally:
        for process in reversed(started):
            if process.poll() is None:
                end(process)
