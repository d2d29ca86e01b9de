"""The processes of the stack: what is run, with which environment, and how one sees that it is healthy."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from oteo_local import health, ray_head, triton
from oteo_local.endpoints import HOST, SERVICES
from oteo_local.layout import Layout
from oteo_local.settings import LocalSettings
from oteo_local.triton_env import TritonEnvironment, default_prefix

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1")
# Variables of whoever types the command that would reach into the stack: a client's own address and token, another Ray, another Python.
DROPPED = (
    "OTEO_ADDRESS",
    "OTEO_TOKEN",
    "OTEO_LISTEN",
    "OTEO_METRICS_PORT",
    "PYTHONPATH",
    "PYTHONHOME",
    "RAY_ADDRESS",
    "RAY_TMPDIR",
    "MLFLOW_TRACKING_URI",
    "MLFLOW_RUN_ID",
)


@dataclass(frozen=True)
class Program:
    """One process that supervisord keeps running.

    Parameters
    ----------
    name : str
        Lower-case letters; also the name of its log.
    command : list of str
        Command line.
    address : str
        Where it answers: ``host:port`` or a URL.
    check : callable
        Says whether it is healthy; takes no argument, never raises.
    environment : dict
        Variables beside those that all processes share.
    stop_signal : str
        Sent to end it, without ``SIG``.
    """

    name: str
    command: list[str]
    address: str
    check: health.Check
    environment: dict[str, str] = field(default_factory=dict)
    stop_signal: str = "TERM"


def shared_environment(settings: LocalSettings, layout: Layout, ports: Mapping[str, int]) -> dict[str, str]:
    """Give the variables that every process of the stack has, Ray's jobs included: addresses, tokens, and what keeps them off each other's cores."""
    return {
        "OTEO_STACK_ID": layout.stack_id,
        "OTEO_HOME": str(settings.home),
        "OTEO_TOKEN_FILE": str(layout.token),
        "OTEO_RAY_ADDRESS": f"http://{HOST}:{ports['ray_dashboard']}",
        "OTEO_RAY_TOKEN_PATH": str(layout.ray_token),
        "OTEO_JOB_PYTHON": sys.executable,
        "OTEO_MLFLOW_URI": f"http://{HOST}:{ports['mlflow']}",
        "OTEO_TRITON_URLS": f"{HOST}:{ports['triton']}",
        **{f"OTEO_{name.upper()}_ADDRESS": f"{HOST}:{ports[name]}" for name in SERVICES},
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(layout.ray_token),
        "RAY_USAGE_STATS_ENABLED": "0",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "NO_ALBUMENTATIONS_UPDATE": "1",
        # Threads that wait in a spin take the cores from those that work.
        "OMP_WAIT_POLICY": "PASSIVE",
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
        "PYTHONNOUSERSITE": "1",
        "PYTHONUNBUFFERED": "1",
    }


def standard_programs(settings: LocalSettings, layout: Layout, ports: Mapping[str, int]) -> list[Program]:
    """Give all processes: Ray, MLflow, Triton and the four services."""
    return [ray_program(settings, layout, ports), mlflow_server(layout, ports), triton_server(settings, layout, ports), *services(ports)]


def ray_program(settings: LocalSettings, layout: Layout, ports: Mapping[str, int]) -> Program:
    """Ray's head, in the foreground."""
    url = f"http://{HOST}:{ports['ray_dashboard']}"
    command = ray_head.command(ports, cpus=settings.cpus(), object_store_bytes=settings.ray_object_store_bytes, temp=layout.ray)

    def check() -> bool:
        # The Jobs API and not the version: it is what the services need, and answers last.
        return health.http_ok(f"{url}/api/jobs/", {"Authorization": f"Bearer {layout.ray_token.read_text().strip()}"})

    environment = {
        "RAY_ROTATION_MAX_BYTES": str(settings.log_bytes),
        "RAY_DASHBOARD_STARTUP_TIMEOUT_S": "240",  # 60 are too few where a training has the cores
        "RAY_JOB_START_TIMEOUT_SECONDS": "86400",  # a training waits for its turn; after a quarter of an hour Ray would call it failed
        "RAY_ROTATION_BACKUP_COUNT": str(settings.log_backups),
        "OTEO_LAUNCH_PRUNE": str(layout.ray),
    }
    # Asked politely, Ray drains its one node for ten seconds, to no one's good: nothing of it is kept. Its daemons are then ended with what else is left.
    return Program("ray", command, url, check, environment, stop_signal="KILL")


def mlflow_server(layout: Layout, ports: Mapping[str, int]) -> Program:
    """The MLflow server, on SQLite and a local folder."""
    url = f"http://{HOST}:{ports['mlflow']}"
    command = [sys.executable, "-m", "oteo_local.mlflow_server", f"--folder={layout.mlflow}", f"--host={HOST}", f"--port={ports['mlflow']}"]
    return Program("mlflow", command, url, partial(health.http_ok, f"{url}/health"), dict(ONE_THREAD))


def triton_server(settings: LocalSettings, layout: Layout, ports: Mapping[str, int]) -> Program:
    """The embedded Triton."""
    environment = TritonEnvironment((settings.triton_env or default_prefix()).expanduser().absolute())
    environment.require()
    server = triton.TritonServer(
        str(layout.repository), ports["triton"], metrics_port=ports["triton_metrics"], host=HOST, environment=environment
    )
    command = [
        sys.executable,
        "-m",
        "oteo_local.triton",
        f"--repository={server.repository}",
        f"--grpc-port={server.grpc_port}",
        f"--metrics-port={server.metrics_port}",
        f"--prefix={environment.prefix}",
    ]
    address = f"{HOST}:{server.grpc_port}"
    return Program("triton", command, address, partial(triton.is_ready, address))


def services(ports: Mapping[str, int]) -> list[Program]:
    """The four services."""
    programs = []
    for name in ("augment", "automl", "translate", "gateway"):
        address = f"{HOST}:{ports[name]}"
        environment = {**ONE_THREAD, "OTEO_LISTEN": address, "OTEO_METRICS_PORT": str(ports[f"{name}_metrics"])}
        programs.append(Program(name, [sys.executable, "-m", f"oteo_{name}"], address, partial(health.grpc_health, address), environment))
    return programs
