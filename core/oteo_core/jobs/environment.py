"""The environment variables that carry a service's settings to its jobs."""

from __future__ import annotations

import json
import os
from pathlib import Path

from pydantic import SecretStr
from pydantic_settings import NoDecode

from oteo_core.settings import CoreSettings

_NOT_FOR_JOBS = frozenset({"token", "database_url", "listen", "reuse_port", "metrics_port", "tls_key", "tls_cert", "tls_client_ca"})
"""Secrets that jobs have no use for (a job's environment is shown by Ray's dashboard), and what concerns serving."""
_PASSED_ON = ("AWS_ENDPOINT_URL", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_CA_BUNDLE", "AWS_PROFILE", "MLFLOW_TRACKING_TOKEN")


def job_environment(settings: CoreSettings) -> dict[str, str]:
    """Give the variables from which a job reads the same settings as the service that started it, but for secrets.

    Other ``OTEO_*`` variables of the service are its own, such as the mark by which whoever started it knows it again.
    """
    kept = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    for name, field in type(settings).model_fields.items():
        variable = f"OTEO_{name.upper()}"
        value = getattr(settings, name)
        if name in _NOT_FOR_JOBS or name in settings.not_for_jobs or isinstance(value, SecretStr):
            continue
        if value is not None:
            plain = any(item is NoDecode or isinstance(item, NoDecode) for item in field.metadata)
            kept[variable] = _text(value, plain)
    return {**kept, "PYTHONUNBUFFERED": "1", "OMP_WAIT_POLICY": "PASSIVE", "NO_ALBUMENTATIONS_UPDATE": "1"}


def _text(value: object, plain: bool) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float | Path):
        return str(value)
    if plain and isinstance(value, list | tuple):
        return ",".join(str(item) for item in value)
    return json.dumps(value, default=str)
