"""Settings of the gateway."""

from __future__ import annotations

from pydantic import Field, model_validator

from oteo_core.auditlog.settings import AuditSettings
from oteo_gateway.access.settings import AccessSettings


class GatewaySettings(AccessSettings, AuditSettings):
    """What the gateway reads from ``OTEO_*`` environment variables, beside what every service, the door and the audit log read."""

    predict_concurrency: int = Field(default=64, ge=1, description="Predictions that run at a time.")
    predict_queue: int = Field(
        default=256, ge=0, description="Predictions that wait at a time; one more is refused with RESOURCE_EXHAUSTED."
    )
    predict_stream_window: int = Field(default=8, ge=1, description="Images of one PredictStream that are worked on at a time.")
    decode_threads: int = Field(default=0, ge=0, description="Threads that decode images; 0: one for each CPU, four at most.")
    predict_max_frames: int = Field(default=20_000, ge=1, description="Most frames or pages of a file that is predicted on.")
    predict_max_nesting: int = Field(default=32, ge=1, description="Most DICOM sequences within each other in such a file.")
    predict_seconds: float = Field(default=60.0, gt=0, description="Time limit of a prediction whose caller set none, seconds.")
    shadow_queue: int = Field(
        default=64,
        ge=1,
        description="Copies of predictions that wait for shadow models at a time; one more is left out and counted as missed.",
    )
    shadow_write_seconds: float = Field(
        default=2.0, gt=0, description="Period in which what shadow models answered is written to the database, seconds."
    )
    adapt_below: float = Field(
        default=0.05,
        gt=0,
        lt=1,
        description="An image is taken for a shifted one, and translated where the deployment's adapt says so, if a smaller share of the "
        "model's training images lie farther from their mean than it does, 0 to 1.",
    )
    probe_seconds: float = Field(default=5.0, gt=0, description="A deployed model that answered is probed again after so long, seconds.")
    probe_timeout_seconds: float = Field(default=15.0, gt=0, description="A probe that takes longer has failed, seconds.")
    load_timeout_seconds: float = Field(
        default=120.0, gt=0, description="Loading a model into Triton that takes longer has failed, seconds."
    )
    deploy_timeout_seconds: float = Field(
        default=600.0,
        gt=0,
        description="A deployment that no replica serves by then fails its operation; it is served when they do, seconds.",
    )
    lease_seconds: float = Field(default=10.0, gt=0, description="Length of the reconciler's lease among gateways, seconds.")
    discover_seconds: float = Field(
        default=2.0, gt=0, description="Period in which DNS is asked for Triton replicas that are given as dns:///NAME:PORT, seconds."
    )
    health_seconds: float = Field(
        default=1.0, gt=0, description="Period in which Triton replicas are asked whether they are there, seconds."
    )

    @model_validator(mode="after")
    def _listen(self) -> GatewaySettings:
        self.__dict__["listen"] = self.listen or self.gateway_address
        return self
