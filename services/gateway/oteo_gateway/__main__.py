"""The gateway: ``python -m oteo_gateway``."""

from __future__ import annotations

import cv2

from oteo_core.jobs import RayJobRunner
from oteo_core.server import serve
from oteo_gateway.access.making import addresses_outside
from oteo_gateway.service import Gateway
from oteo_gateway.settings import GatewaySettings


def main() -> None:
    """Read the settings, build, serve."""
    settings = GatewaySettings()
    # Images are decoded side by side, each on one thread: OpenCV's own threads would only be in their way.
    cv2.setNumThreads(1)
    gateway = Gateway(settings, RayJobRunner(settings.ray_address, settings.ray_token_path))
    serve(
        settings,
        service="gateway",
        register=gateway.register,
        on_start=[gateway.start],
        on_stop=[gateway.stop],
        door=gateway.door,
        also=addresses_outside(settings),
        hook=gateway.hook,
    )


if __name__ == "__main__":
    main()
