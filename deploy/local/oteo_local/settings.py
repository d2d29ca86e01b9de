"""Settings of the stack on one machine, read from ``OTEO_*`` environment variables."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

PORTS = (
    "gateway",
    "augment",
    "automl",
    "translate",
    "gateway_metrics",
    "augment_metrics",
    "automl_metrics",
    "translate_metrics",
    "triton",
    "triton_metrics",
    "mlflow",
    "ray",
    "ray_dashboard",
    "ray_agent",
    "ray_agent_grpc",
    "ray_runtime_env",
    "ray_metrics",
    "ray_client",
)


class LocalSettings(BaseSettings):
    """Where the stack keeps its state, which ports it takes and how much of the machine."""

    model_config = SettingsConfigDict(env_prefix="OTEO_", extra="ignore", validate_default=True)

    home: Path = Field(default=Path("~/.oteo"), description="Folder of everything that the stack keeps.")
    triton_env: Path | None = Field(default=None, description="Environment of the embedded Triton; unset: the repository's .venv-triton.")
    start_timeout: float = Field(default=300.0, gt=0, description="Seconds that `up` waits for everything to be healthy.")
    stop_grace: float = Field(default=15.0, ge=0, description="Seconds that a process is given to end by itself on `down`.")
    ray_cpus: int = Field(default=0, ge=0, description="Cores that Ray hands out; 0: all that this process may use.")
    ray_object_store_bytes: int = Field(default=512 * 1024**2, ge=80 * 1024**2, description="Ray's object store in shared memory, bytes.")
    log_bytes: int = Field(default=10 * 1024**2, ge=64 * 1024, description="Size at which a process's log is rotated, bytes.")
    log_backups: int = Field(default=3, ge=0, description="Rotated logs that are kept of each process.")

    gateway_port: int = Field(
        default=0, ge=0, le=65535, description="gRPC port of the gateway; this and every other port: 0 is a free one, kept from then on."
    )
    augment_port: int = Field(default=0, ge=0, le=65535, description="gRPC port of augment.")
    automl_port: int = Field(default=0, ge=0, le=65535, description="gRPC port of automl.")
    translate_port: int = Field(default=0, ge=0, le=65535, description="gRPC port of translate.")
    gateway_metrics_port: int = Field(default=0, ge=0, le=65535, description="Port of the gateway's metrics.")
    augment_metrics_port: int = Field(default=0, ge=0, le=65535, description="Port of augment's metrics.")
    automl_metrics_port: int = Field(default=0, ge=0, le=65535, description="Port of automl's metrics.")
    translate_metrics_port: int = Field(default=0, ge=0, le=65535, description="Port of translate's metrics.")
    triton_port: int = Field(default=0, ge=0, le=65535, description="gRPC port of Triton.")
    triton_metrics_port: int = Field(default=0, ge=0, le=65535, description="Port of Triton's metrics.")
    mlflow_port: int = Field(default=0, ge=0, le=65535, description="Port of the MLflow server.")
    ray_port: int = Field(default=0, ge=0, le=65535, description="Port of Ray's head; outside 10002-19999, which its workers take.")
    ray_dashboard_port: int = Field(default=0, ge=0, le=65535, description="Port of Ray's dashboard and Jobs API.")
    ray_agent_port: int = Field(default=0, ge=0, le=65535, description="Port of Ray's node agent (HTTP).")
    ray_agent_grpc_port: int = Field(default=0, ge=0, le=65535, description="Port of Ray's node agent (gRPC).")
    ray_runtime_env_port: int = Field(default=0, ge=0, le=65535, description="Port of Ray's runtime environment agent.")
    ray_metrics_port: int = Field(default=0, ge=0, le=65535, description="Port of Ray's metrics.")
    ray_client_port: int = Field(
        default=0, ge=0, le=65535, description="Port of Ray's client server, which Oteo does not use and Ray cannot be started without."
    )

    @field_validator("home")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return Path(os.path.abspath(value.expanduser()))

    @field_validator("ray_port")
    @classmethod
    def _outside_workers(cls, value: int) -> int:
        if 10002 <= value <= 19999:
            raise ValueError("lies in 10002-19999, which Ray's workers take")
        return value

    def fixed_ports(self) -> dict[str, int]:
        """Give the ports that were asked for, by name."""
        return {name: port for name in PORTS if (port := getattr(self, f"{name}_port"))}

    def cpus(self) -> int:
        """Give the cores that Ray hands out."""
        return self.ray_cpus or len(os.sched_getaffinity(0))
