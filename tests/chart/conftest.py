"""Fixtures of the chart's tests."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "tools"))
# What publishes a model for the gateway's tests does so for these.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "gateway"))

from charting import PRESETS
from engine_fixtures import postgres
from sites import make_site, store

__all__ = ["make_site", "postgres", "store"]


@pytest.fixture(params=PRESETS)
def preset(request: pytest.FixtureRequest) -> str:
    """Give each preset's name."""
    return str(request.param)
