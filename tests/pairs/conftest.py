"""The site of two of each, started once for all tests here."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "gateway"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "chart"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "pairs"))

from engines import Postgres
from gateway_support import deploy_model
from pair_site import METADATA, Pair, build_pair


@pytest.fixture(scope="session")
def mortal_postgres() -> Iterator[Postgres]:
    """Give a PostgreSQL server that tests may stop and start."""
    with tempfile.TemporaryDirectory(prefix="oteo-pg-", ignore_cleanup_errors=True) as folder:
        server = Postgres(Path(folder))
        server.start()
        try:
            yield server
        finally:
            server.stop()


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory, mortal_postgres: Postgres) -> Iterator[Pair]:
    """Give the site; a test that kills any of it starts it again."""
    with ExitStack() as stack:
        yield build_pair(tmp_path_factory.mktemp("pair"), mortal_postgres, stack)


@pytest.fixture(scope="session")
def colours(pair: Pair) -> str:
    """Give the name of a deployment that answers."""
    with grpc.insecure_channel(pair.cluster.address) as channel:
        deploy_model(channel, "colours", METADATA)
    return "deployments/colours"
