"""Fixtures of the real engines, shared by the contract and the fault tests."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from engines import Postgres, RayHead


@pytest.fixture(scope="session")
def ray_head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayHead]:
    """Give a Ray head that no test harms."""
    head = RayHead(tmp_path_factory.mktemp("ray"))
    try:
        head.start()
        yield head
    finally:
        head.stop()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """Give a PostgreSQL server; a machine without one fails, unless it says that it has none."""
    if os.environ.get("OTEO_TEST_NO_POSTGRES") == "1":
        pytest.skip("OTEO_TEST_NO_POSTGRES=1: no PostgreSQL on this machine")
    with tempfile.TemporaryDirectory(prefix="oteo-pg-", ignore_cleanup_errors=True) as folder:
        server = Postgres(Path(folder))
        server.start()
        try:
            yield server
        finally:
            server.stop()
