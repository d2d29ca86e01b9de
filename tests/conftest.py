"""Fixtures that every part of the suite shares."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

# Before anything imports PyTorch: processes that share the cores and have a thread for each wait for each other's threads, and a step of a training takes
# twenty times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest
from xdist.scheduler import LoadScopeScheduling

pytest_plugins = ["stack_fixture"]

ROOT = Path(__file__).resolve().parent.parent


ENGINES = ("contract", "e2e", "faults", "local", "pairs", "upgrade")
"""Folders whose tests start Ray, Triton, databases or the whole stack, and wait for them more than they work."""


class EnginesTogether(LoadScopeScheduling):
    """Keep together, where several processes share the tests, what shares an engine: one stack and one Ray at a time; else a file's tests.

    Groups by marks (``--dist loadgroup``) do nothing: xdist 3.8 writes them into what pytest 9 no longer reads.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::", 1)[0]
        return "engines" if Path(file).parts[1:2] and Path(file).parts[1] in ENGINES else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> EnginesTogether:
    """Have tests shared by `EnginesTogether`, whatever ``--dist`` says."""
    return EnginesTogether(config, log)


@pytest.fixture(scope="session")
def repository() -> Path:
    """Give the repository's root."""
    return ROOT


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Give the folder of real images, or skip where it is absent."""
    folder = Path(os.environ.get("OTEO_TEST_DATA", ROOT / ".." / "shared" / "data")).resolve()
    if not folder.is_dir():
        pytest.skip(f"no real images: {folder} is not there; OTEO_TEST_DATA names their folder")
    return folder
