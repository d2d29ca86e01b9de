"""Fixtures that every part of the suite shares."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytest_plugins = ["stack_fixture"]

ROOT = Path(__file__).resolve().parent.parent


ENGINES = ("contract", "e2e", "faults", "local")
"""Folders whose tests start Ray, Triton, databases or the whole stack, and wait for them more than they work."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep together, where several processes share the tests, what shares an engine: one stack and one Ray at a time; else a file's tests."""
    for item in items:
        folder = item.path.relative_to(ROOT / "tests").parts[0]
        item.add_marker(pytest.mark.xdist_group("engines" if folder in ENGINES else str(item.path)))


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
