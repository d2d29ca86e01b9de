"""Translate: ``python -m oteo_translate``."""

from __future__ import annotations

from oteo_core.jobs import RayJobRunner
from oteo_core.server import serve
from oteo_translate.service import Translate
from oteo_translate.settings import TranslateSettings


def main() -> None:
    """Read the settings, build, serve."""
    settings = TranslateSettings()
    translate = Translate(settings, RayJobRunner(settings.ray_address, settings.ray_token_path, settings.ray_workers))
    serve(settings, service="translate", register=translate.register, on_start=[translate.start], on_stop=[translate.stop])


if __name__ == "__main__":
    main()
