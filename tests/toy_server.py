"""The toy service as a process of its own: begins one operation (or finds it again) and reconciles until it is ended.

``python -m toy_server RAY_ADDRESS TOKEN_PATH REQUEST_ID STEPS SECONDS``; settings from the environment.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from toy_service import Toy

from oteo_core.jobs import RayJobRunner
from oteo_core.settings import CoreSettings


def main() -> None:
    """Run."""
    address, token, request_id, steps, seconds = sys.argv[1:]
    toy = Toy(CoreSettings(), RayJobRunner(address, Path(token)))
    name = toy.start("Count", request_id=request_id, target="datasets/served", steps=int(steps), seconds=float(seconds), tasks=True)
    print(name, flush=True)
    while True:
        time.sleep(1.0)


if __name__ == "__main__":
    main()
