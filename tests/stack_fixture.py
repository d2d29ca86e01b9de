"""The whole stack, started once for the tests that need it."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from waiting import patient

from oteo_local.settings import LocalSettings
from oteo_local.stack import Stack
from oteo_local.triton_env import TritonEnvironment, default_prefix


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Run Ray, MLflow, Triton and all services under a home of their own, for the whole session.

    A test may kill any of it, and then leaves it healthy (`Stack.wait_healthy`). At the end nothing may run any more.
    """
    TritonEnvironment(default_prefix()).build()
    home = tmp_path_factory.mktemp("stack") / "home"
    # What a test session is given in OTEO_* variables is meant for its user's own stack, not for this one.
    settings = LocalSettings.model_construct(**{name: field.get_default() for name, field in LocalSettings.model_fields.items()})
    running = Stack(home, settings=settings)

    def tell(name: str, state: str, seconds: float) -> None:
        print(f"stack: {name} {state} after {seconds:.1f} s", file=sys.stderr)

    failed = True
    try:
        running.up(progress=tell, timeout=patient(60))
        yield running
        failed = False
    finally:
        running.down()
        left = running.processes()
        if failed or os.environ.get("OTEO_TEST_KEEP"):
            print(f"stack: its logs are in {running.layout.logs}", file=sys.stderr)
        else:
            shutil.rmtree(home, ignore_errors=True)
    assert not left, f"processes left after down: {[(process.pid, process.name()) for process in left]}"
    assert not Path(running.layout.socket).exists()
