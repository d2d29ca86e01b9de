"""The service: ``python -m oteo_automl``."""

from __future__ import annotations

from oteo_automl.service import AutoML
from oteo_automl.settings import AutoMLSettings
from oteo_core.jobs import RayJobRunner
from oteo_core.server import serve


def main() -> None:
    """Read the settings, build, serve."""
    settings = AutoMLSettings()
    automl = AutoML(settings, RayJobRunner(settings.ray_address, settings.ray_token_path))
    serve(settings, service="automl", register=automl.register, on_start=[automl.start], on_stop=[automl.stop])


if __name__ == "__main__":
    main()
