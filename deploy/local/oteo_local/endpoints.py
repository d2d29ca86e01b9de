"""Ports of the stack: chosen once, kept across restarts, told in ``endpoints.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from oteo_local.layout import write_private
from oteo_local.ports import free_port, is_free
from oteo_local.settings import PORTS

HOST = "127.0.0.1"
SERVICES = ("gateway", "augment", "automl", "translate")


class PortInUse(RuntimeError):
    """A port that the settings ask for is taken by another program."""


def choose_ports(fixed: Mapping[str, int], remembered: Mapping[str, int]) -> dict[str, int]:
    """Choose a port for every part: what the settings fix, else what was used before if it is still free, else a free one.

    Parameters
    ----------
    fixed : mapping
        Ports that the settings ask for, by name.
    remembered : mapping
        Ports of the last start, by name.

    Raises
    ------
    PortInUse
        A fixed port is taken, or two parts are given the same.
    """
    chosen: dict[str, int] = {}
    for name, port in fixed.items():
        if port in chosen.values():
            raise PortInUse(f"OTEO_{name.upper()}_PORT={port} is also given to another part")
        if not is_free(port):
            raise PortInUse(
                f"port {port} for {name} is in use by another program; end that, or set OTEO_{name.upper()}_PORT to another (0: any free one)"
            )
        chosen[name] = port
    for name in PORTS:
        if name in chosen:
            continue
        before = remembered.get(name, 0)
        usable = before and before not in chosen.values() and is_free(before)
        chosen[name] = before if usable else free_port({*chosen.values(), *remembered.values()})
    return chosen


def describe(ports: Mapping[str, int]) -> dict[str, Any]:
    """Give what ``endpoints.json`` says: ``host:port`` of gRPC servers, URLs of consoles, and all ports by name."""
    return {
        **{name: f"{HOST}:{ports[name]}" for name in (*SERVICES, "triton")},
        "mlflow": f"http://{HOST}:{ports['mlflow']}",
        "ray_dashboard": f"http://{HOST}:{ports['ray_dashboard']}",
        "metrics": {name: f"http://{HOST}:{ports[f'{name}_metrics']}/metrics" for name in (*SERVICES, "triton", "ray")},
        "ports": dict(ports),
    }


def read(file: Path) -> dict[str, Any]:
    """Read ``endpoints.json``; empty if it is missing or damaged."""
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def write(file: Path, endpoints: Mapping[str, Any]) -> None:
    """Write ``endpoints.json``."""
    write_private(file, json.dumps(endpoints, indent=1) + "\n")
