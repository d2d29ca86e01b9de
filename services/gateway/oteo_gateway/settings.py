"""Settings of the gateway."""

from __future__ import annotations

from pydantic import Field, model_validator

from oteo_core.auditlog.settings import AuditSettings
from oteo_gateway.access.settings import AccessSettings


class GatewaySettings(AccessSettings, AuditSettings):
    """What the gateway reads from ``OTEO_*`` environment variables, beside what every service, the door and the audit log read."""

    processes: int = Field(
        default=1, ge=1, le=64, description="Processes of this gateway that share its port; a caller's connection stays with one of them."
    )
    predict_concurrency: int = Field(default=64, ge=1, description="Predictions that run at a time.")
    predict_queue: int = Field(
        default=256, ge=0, description="Predictions that wait at a time; one more is refused with RESOURCE_EXHAUSTED."
    )
    predict_queue_bytes: int = Field(
        default=256 * 1024 * 1024, ge=1, description="Bytes of images that wait at a time; more are refused, but for one alone."
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
    statistics_seconds: float = Field(
        default=5.0, gt=0, description="Period in which Triton replicas are asked for what they counted, for the metrics, seconds."
    )
    health_seconds: float = Field(
        default=1.0, gt=0, description="Period in which Triton replicas are asked whether they are there, seconds."
    )
    watch_seconds: float = Field(
        default=5.0, gt=0, description="Period in which figures of answered images are written and tested for shift, seconds."
    )
    shift_look_images: int = Field(default=16, ge=1, description="A deployment is tested for shift again after so many new images.")
    shift_look_seconds: float = Field(default=60.0, gt=0, description="It is tested after so long where fewer images are new, seconds.")
    shift_false_alarms: float = Field(
        default=0.01, gt=0, lt=1, description="False alarms of a shift that are accepted for each 10,000 images, 0 to 1."
    )
    shift_least_effect: float = Field(
        default=0.15, ge=0, lt=1, description="Smaller shifts (distance of distributions, 0 to 1) raise no alarm, however sure they are."
    )

    @model_validator(mode="after")
    def _listen(self) -> GatewaySettings:
        self.__dict__["listen"] = self.listen or self.gateway_address
        return self
