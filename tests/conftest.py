"""Fixtures that every part of the suite shares."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytest_plugins = ["stack_fixture"]

ROOT = Path(__file__).resolve().parent.parent


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
