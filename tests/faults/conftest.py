"""What the fault tests kill."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "gateway"))

from engine_fixtures import postgres
from engines import RayHead
from toy_service import Toy, TwoToys

from oteo_core.jobs import RayJobRunner
from oteo_core.settings import CoreSettings

__all__ = ["postgres"]


@pytest.fixture(scope="module")
def mortal_head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayHead]:
    """Give a Ray head that tests may kill; each starts it again."""
    head = RayHead(tmp_path_factory.mktemp("ray"))
    try:
        head.start()
        yield head
    finally:
        head.stop()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def toy_settings(request: pytest.FixtureRequest, tmp_path: Path) -> CoreSettings:
    """Give settings of the toy service in a home of its own, on each kind of database."""
    url = "" if request.param == "sqlite" else str(request.getfixturevalue("postgres").new_url())
    return CoreSettings(home=tmp_path / "home", job_python=sys.executable, reconcile_seconds=0.25, database_url=url)


@pytest.fixture
def toy(toy_settings: CoreSettings, mortal_head: RayHead) -> Iterator[Toy]:
    """Give the toy's operations on Ray: of one service on SQLite, and of two replicas on one PostgreSQL."""
    runners = [RayJobRunner(mortal_head.address, mortal_head.token_path) for _ in range(2)]
    found = Toy(toy_settings, runners[0]) if toy_settings.database_url.startswith("sqlite") else TwoToys(toy_settings, *runners)
    yield found
    found.close()
