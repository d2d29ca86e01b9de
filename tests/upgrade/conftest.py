"""Databases of earlier releases."""

from __future__ import annotations

import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "gateway"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "upgrade"))

from engine_fixtures import postgres
from gateway_support import Loop

__all__ = ["postgres"]

SCHEMAS = Path(__file__).resolve().parent / "schemas"
RELEASES = sorted({file.name.split(".")[0] for file in SCHEMAS.glob("*.sql")})


@pytest.fixture(scope="session")
def loop():
    """Give an event loop in a thread."""
    found = Loop()
    yield found
    found.close()


@pytest.fixture(params=RELEASES)
def release(request: pytest.FixtureRequest) -> str:
    """Give each release whose tables differ from the next one's."""
    return str(request.param)


@pytest.fixture(params=["sqlite", "postgresql"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Give the URL of an empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/oteo.db"
    return str(request.getfixturevalue("postgres").new_url())


@pytest.fixture
def url(release: str, empty: str) -> str:
    """Give the URL of a database as a release left it, with rows."""
    kind = empty.split(":")[0]
    text = (SCHEMAS / f"{release}.{kind}.sql").read_text()
    if kind == "sqlite":
        with closing(sqlite3.connect(empty.removeprefix("sqlite:///"))) as connection:
            connection.executescript(text)
    else:
        import psycopg

        with psycopg.connect(empty, autocommit=True) as connection:
            connection.execute(text)
    return empty
