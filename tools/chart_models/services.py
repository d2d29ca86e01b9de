"""The four services: their images' settings, replicas, doors."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, create_model

from chart_models.common import Percent, Placing, Port, Quantity, Resources, Values
from oteo_augment.settings import AugmentSettings
from oteo_automl.settings import AutoMLSettings
from oteo_core.settings import CoreSettings
from oteo_gateway.settings import GatewaySettings
from oteo_translate.settings import TranslateSettings

MANAGED = frozenset(
    {
        *("home", "artifacts", "artifact_options", "database_url", "ray_address", "ray_token_path", "job_python", "mlflow_uri"),
        *("triton_urls", "model_repository", "augment_address", "automl_address", "translate_address", "gateway_address", "listen"),
        *("metrics_port", "token", "token_file", "allow_anonymous", "tls_cert", "tls_key", "tls_ca", "tls_client_ca", "tls_client_auth"),
        *("max_connection_age_seconds", "drain_seconds", "log_format", "log_level", "audit_folder", "audit_key_file", "audit_archive"),
        *("tokens_file", "oidc_ca", "certificates_listen", "certificates_ca", "callers_listen", "callers_cert", "callers_key"),
        *("ray_workers", "deidentification_key_file"),
    }
)
"""Settings that the chart itself gives, from other values."""


def settings_of(kind: type[CoreSettings], name: str) -> type[BaseModel]:
    """Give the model of the settings that may be given to a service."""
    fields: dict[str, Any] = {}
    for field, info in kind.model_fields.items():
        if field in MANAGED:
            continue
        annotation: Any = info.annotation
        for constraint in info.metadata:
            annotation = Annotated[annotation, constraint]
        fields[field] = (annotation, Field(default=None, description=info.description))
    return create_model(name, __config__=ConfigDict(extra="forbid"), **fields)


GatewayOwn = settings_of(GatewaySettings, "GatewayOwn")
AugmentOwn = settings_of(AugmentSettings, "AugmentOwn")
AutoMLOwn = settings_of(AutoMLSettings, "AutoMLOwn")
TranslateOwn = settings_of(TranslateSettings, "TranslateOwn")


class HorizontalScaling(Values):
    """An autoscaler on CPU."""

    enabled: bool
    minReplicas: int = Field(ge=1, le=100)
    maxReplicas: int = Field(ge=1, le=100)
    cpuPercent: Percent
    scaleDownSeconds: int = Field(ge=0, le=3600)


class Service(Placing):
    """What every service has."""

    replicas: int = Field(ge=1, le=100)
    resources: Resources
    drainSeconds: int = Field(ge=0, le=3600)
    scratch: Quantity


class AuditVolume(Values):
    """Where gateways write the audit log."""

    claim: str = Field(pattern=r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$")
    size: Quantity


class GatewayValues(Service):
    """The gateway."""

    audit: AuditVolume
    autoscaling: HorizontalScaling
    settings: GatewayOwn  # type: ignore[valid-type]


class AugmentValues(Service):
    """Augment."""

    settings: AugmentOwn  # type: ignore[valid-type]


class AutoMLValues(Service):
    """AutoML."""

    settings: AutoMLOwn  # type: ignore[valid-type]


class TranslateValues(Service):
    """Translate."""

    settings: TranslateOwn  # type: ignore[valid-type]


class CallerCertificates(Values):
    """A second port of the gateway, where callers show certificates."""

    enabled: bool
    port: Port
    caConfigMap: str = Field(pattern=r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$")


class Access(Values):
    """Who is let in at the gateway."""

    issuerCaConfigMap: str = Field(pattern=r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$")
    certificates: CallerCertificates
