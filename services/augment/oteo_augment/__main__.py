"""The service: ``python -m oteo_augment``."""

from __future__ import annotations

from oteo_augment.service import Augment
from oteo_augment.settings import AugmentSettings
from oteo_core.jobs import RayJobRunner
from oteo_core.server import serve


def main() -> None:
    """Read the settings, build, serve."""
    settings = AugmentSettings()
    augment = Augment(settings, RayJobRunner(settings.ray_address, settings.ray_token_path))
    serve(settings, service="augment", register=augment.register, on_start=[augment.start], on_stop=[augment.stop])


if __name__ == "__main__":
    main()
