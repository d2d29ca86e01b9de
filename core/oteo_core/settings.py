"""Settings that all services share, read from ``OTEO_*`` environment variables."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

_HIDDEN = "**********"


class CoreSettings(BaseSettings):
    """What every service, job and tool reads; a service's own class derives from it."""

    # A wrong setting is told without what it holds: it may be a secret, and the error goes into a log.
    model_config = SettingsConfigDict(env_prefix="OTEO_", extra="ignore", validate_default=True, hide_input_in_errors=True)

    not_for_jobs: ClassVar[frozenset[str]] = frozenset()
    """Settings that concern who is answered and how: a service's jobs are not given them."""

    home: Path = Field(default=Path("~/.oteo"), description="Folder of the state of one machine.")
    artifacts: str = Field(default="", description="fsspec URI of the artifact store; empty: artifacts below home.")
    artifact_options: dict[str, object] = Field(default_factory=dict, description="fsspec's storage options for the artifact store, JSON.")
    database_url: str = Field(default="", description="SQLAlchemy URL of operations and deployments; empty: SQLite below home.")
    ray_address: str = Field(default="http://127.0.0.1:8265", description="Ray's dashboard, through which jobs are submitted.")
    ray_token_path: Path | None = Field(default=None, description="File of Ray's token.")
    ray_workers: list[tuple[float, int]] = Field(
        default_factory=list,
        description="CPUs and GPUs of each kind of worker that Ray's autoscaler can start, JSON such as [[4, 0], [8, 1]]; what runs is known without.",
    )
    job_python: str = Field(default="python", description="Interpreter that jobs are started with.")
    job_attempts: int = Field(default=5, ge=1, description="Starts of a job before its operation fails.")
    mlflow_uri: str = Field(default="http://127.0.0.1:5000", description="MLflow tracking server.")
    triton_urls: Annotated[list[str], NoDecode] = Field(
        default=["127.0.0.1:8001"],
        description="gRPC addresses of all Triton replicas, separated by commas; dns:///NAME:PORT is all addresses that DNS knows of a name.",
    )
    model_repository: str = Field(default="", description="URI of Triton's model repository; empty: model-repository below home.")
    augment_address: str = Field(default="127.0.0.1:7001", description="host:port of augment.")
    automl_address: str = Field(default="127.0.0.1:7002", description="host:port of automl.")
    translate_address: str = Field(default="127.0.0.1:7003", description="host:port of translate.")
    gateway_address: str = Field(default="127.0.0.1:7000", description="host:port of the gateway.")
    listen: str = Field(default="", description="host:port to serve on; empty: the service's own address.")
    reuse_port: bool = Field(default=False, description="Share the port with other processes; the gateway's own parent sets it for them.")
    metrics_port: int = Field(default=0, ge=0, le=65535, description="Port of Prometheus metrics over HTTP; 0: off.")
    token: SecretStr | None = Field(default=None, description="Token that every call must bear.")
    token_file: Path | None = Field(default=None, description="File that holds the token.")
    allow_anonymous: bool = Field(default=False, description="Serve without a token; for tests on loopback.")
    tls_cert: Path | None = Field(default=None, description="PEM certificate chain; TLS is on where it is set.")
    tls_key: Path | None = Field(default=None, description="PEM private key.")
    tls_ca: Path | None = Field(default=None, description="PEM certificates that servers are checked against; unset: the system's.")
    tls_client_ca: Path | None = Field(default=None, description="PEM certificates that clients are checked against: mutual TLS.")
    tls_client_auth: bool = Field(
        default=True,
        description="Whether callers must show a certificate where tls_client_ca is set; off where callers come from outside, and bear tokens.",
    )
    max_concurrent_streams: int = Field(default=1024, ge=1, description="Calls at a time over one connection; more wait at the caller.")
    max_connection_age_seconds: float = Field(
        default=0.0,
        ge=0,
        description="Age at which a connection is ended, so that callers look again for replicas, seconds; 0: never. Calls in flight go on.",
    )
    otlp_endpoint: str = Field(
        default="",
        description="Address of an OTLP collector that traces are sent to over gRPC, http://HOST:4317 or https://…; empty: none.",
    )
    trace_ratio: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description="Share of the traces begun here that are recorded; one begun by a caller is as the caller says.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="Least severity that is logged.")
    log_format: Literal["json", "console"] = Field(default="json", description="One JSON object a line, or text for a person.")
    max_message_bytes: int = Field(default=64 * 1024 * 1024, ge=1024, description="Largest gRPC message, bytes.")
    max_image_bytes: int = Field(default=512 * 1024 * 1024, ge=1, description="Largest encoded and largest decoded image, bytes.")
    max_image_pixels: int = Field(default=100_000_000, ge=1, description="Most pixels of an image, checked before it is decoded.")
    drain_seconds: float = Field(default=10.0, ge=0, description="Time that calls in flight are given on SIGTERM, seconds.")
    deidentification_key_file: Path | None = Field(
        default=None,
        description="File of the key under which identifiers of DICOM are hashed, 32 characters or more; unset: deidentification.key below home, made when it is first needed.",
    )
    reconcile_seconds: float = Field(default=1.0, gt=0, description="Period of reconcilers, seconds.")
    threads: int = Field(default=8, ge=1, le=256, description="Threads for handlers that block.")

    @field_validator("triton_urls", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _below_home(self) -> CoreSettings:
        home = self.home.expanduser().absolute()
        # Plain attribute setting would validate again and recurse.
        values = self.__dict__
        values["home"] = home
        values["artifacts"] = self.artifacts or f"file://{home}/artifacts"
        values["database_url"] = self.database_url or f"sqlite:///{home}/oteo.db"
        values["model_repository"] = self.model_repository or f"file://{home}/model-repository"
        return self

    def deidentification_key(self) -> bytes:
        """Give the key under which identifiers of DICOM are hashed; its file is made where there is none.

        Raises
        ------
        FailedPrecondition
            BAD_DEIDENTIFICATION_KEY.
        """
        from oteo_core.deidentification.keys import load_key  # pydicom costs a second

        return load_key(self.deidentification_key_file or self.home / "deidentification.key")

    def __repr_args__(self) -> Iterator[tuple[str | None, object]]:
        """Give what a dump of the settings shows: the database's password and the store's keys are not in it."""
        for name, value in super().__repr_args__():
            yield name, _HIDDEN if name in ("database_url", "artifact_options") and value else value

    def shared_token(self) -> str | None:
        """Give the token, from ``token`` or the file; None where neither is set."""
        if self.token is not None:
            return self.token.get_secret_value()
        if self.token_file is not None:
            return self.token_file.expanduser().read_text().strip()
        return None
