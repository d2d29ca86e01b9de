"""The gateway: ``python -m oteo_gateway``."""

from __future__ import annotations

import sys

from oteo_core import telemetry
from oteo_core.server.processes import Supervisor, end_with_parent
from oteo_gateway.settings import GatewaySettings


def main() -> int:
    """Read the settings, then serve, or keep several processes that do."""
    settings = GatewaySettings()
    if settings.processes > 1 and not end_with_parent():
        telemetry.configure_logging(settings, "gateway")
        return Supervisor(settings, "gateway", [sys.executable, "-m", "oteo_gateway"], settings.processes).run()
    serve_alone(settings)
    return 0


def serve_alone(settings: GatewaySettings) -> None:
    """Serve in this process."""
    # Imported here: the parent of several needs none of it.
    import cv2

    from oteo_core.jobs import RayJobRunner
    from oteo_core.server import serve
    from oteo_gateway.access.making import addresses_outside
    from oteo_gateway.service import Gateway

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
        crowd=gateway.crowd,
    )


if __name__ == "__main__":
    sys.exit(main())
