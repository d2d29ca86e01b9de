"""What the fault tests kill."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "gateway"))

from engines import RayHead
from toy_service import Toy

from oteo_core.jobs import RayJobRunner
from oteo_core.settings import CoreSettings


@pytest.fixture(scope="module")
def mortal_head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayHead]:
    """Give a Ray head that tests may kill; each starts it again."""
    head = RayHead(tmp_path_factory.mktemp("ray"))
    try:
        head.start()
        yield head
    finally:
        head.stop()


@pytest.fixture
def toy_settings(tmp_path: Path) -> CoreSettings:
    """Give settings of the toy service in a home of its own."""
    return CoreSettings(home=tmp_path / "home", job_python=sys.executable, reconcile_seconds=0.25)


@pytest.fixture
def toy(toy_settings: CoreSettings, mortal_head: RayHead) -> Iterator[Toy]:
    """Give the toy's operations on Ray."""
    found = Toy(toy_settings, RayJobRunner(mortal_head.address, mortal_head.token_path))
    yield found
    found.close()
