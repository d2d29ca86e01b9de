"""A service of ours as a process whose jobs are plain processes: ``python served_by_processes.py {augment,gateway,…}``, where a test wants no Ray."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from oteo_core.jobs import ProcessJobRunner
from oteo_core.server import serve


def main(name: str) -> None:
    """Serve as the service's own ``__main__`` does, with another runner of jobs."""
    settings = getattr(importlib.import_module(f"oteo_{name}.settings"), f"{name.capitalize()}Settings")()
    made = getattr(importlib.import_module(f"oteo_{name}.service"), name.capitalize())(
        settings, ProcessJobRunner(Path(settings.home) / f"{name}-jobs", executor="inline")
    )
    serve(settings, service=name, register=made.register, on_start=[made.start], on_stop=[made.stop])


if __name__ == "__main__":
    main(sys.argv[1])
