"""The command line of a Ray head on one machine."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from oteo_local.endpoints import HOST

PORTS = {
    "ray": "--port",
    "ray_dashboard": "--dashboard-port",
    "ray_agent": "--dashboard-agent-listen-port",
    "ray_agent_grpc": "--dashboard-agent-grpc-port",
    "ray_runtime_env": "--runtime-env-agent-port",
    "ray_metrics": "--metrics-export-port",
    "ray_client": "--ray-client-server-port",
}
"""Every port of a head, and the option that sets it. None may be left to Ray: the agent's default is one fixed port, and a second head on the
machine then goes without the agent that starts jobs, though its Jobs API says that all is well."""


def command(ports: Mapping[str, int], *, cpus: int, object_store_bytes: int, temp: str | os.PathLike[str]) -> list[str]:
    """Give the command that runs a head in the foreground.

    Parameters
    ----------
    ports : mapping
        A port for each name in `PORTS`; others are left out.
    cpus : int
        CPUs that tasks may take.
    object_store_bytes : int
        Shared memory for objects, bytes.
    temp : path
        Folder of its sessions. Sockets lie there, so its path must be short.
    """
    return [
        str(Path(sys.executable).parent / "ray"),
        "start",
        "--head",
        "--block",
        "--disable-usage-stats",
        "--log-style=record",
        "--include-dashboard=true",
        "--include-log-monitor=false",  # what workers print is in the session's logs; nobody reads it off the driver
        f"--node-ip-address={HOST}",
        f"--dashboard-host={HOST}",
        *(f"{option}={ports[name]}" for name, option in PORTS.items()),
        "--min-worker-port=0",  # any free one: two heads on one machine would be given the same range
        "--max-worker-port=0",
        f"--num-cpus={cpus}",
        f"--object-store-memory={object_store_bytes}",
        f"--temp-dir={temp}",
    ]
