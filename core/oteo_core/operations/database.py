"""Connections to SQLite and PostgreSQL, and the database's own clock."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Float, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from oteo_core.errors import FailedPrecondition, InvalidArgument, OteoError, ResourceExhausted, Unavailable

BUSY_MILLISECONDS = 20_000
"""How long a writer of SQLite waits for another."""


class db_now(FunctionElement[float]):
    """The database's clock in seconds since 1970: one clock for all replicas, whatever their own say."""

    type = Float()
    inherit_cache = True
    name = "db_now"


@compiles(db_now, "sqlite")
def _sqlite_now(_element: Any, _compiler: Any, **_options: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(db_now, "postgresql")
def _postgresql_now(_element: Any, _compiler: Any, **_options: Any) -> str:
    return "extract(epoch from clock_timestamp())::double precision"


def open_engine(url: str) -> Engine:
    """Open a database.

    Parameters
    ----------
    url
        ``sqlite:///path`` or ``postgresql://user:password@host/name`` (psycopg 3 is the driver).

    Raises
    ------
    InvalidArgument
        ``UNKNOWN_DATABASE``: neither of the two.
    """
    try:
        parsed = make_url(url)
    except Exception as error:
        raise InvalidArgument("the database URL cannot be read", reason="UNKNOWN_DATABASE", field="database_url") from error
    if parsed.get_backend_name() == "sqlite":
        if parsed.database and parsed.database != ":memory:":
            Path(parsed.database).expanduser().parent.mkdir(parents=True, exist_ok=True)
        engine = create_engine(parsed, connect_args={"timeout": BUSY_MILLISECONDS / 1000, "check_same_thread": False})
        _prepare_sqlite(engine)
        return engine
    if parsed.get_backend_name() in ("postgresql", "postgres"):
        # pre_ping: a connection that the server's restart has cut is replaced, not handed out.
        return create_engine(parsed.set(drivername="postgresql+psycopg"), pool_pre_ping=True, pool_size=5, max_overflow=10)
    raise InvalidArgument(
        f"the database must be SQLite or PostgreSQL, not {parsed.get_backend_name()}", reason="UNKNOWN_DATABASE", field="database_url"
    )


def _prepare_sqlite(engine: Engine) -> None:
    @event.listens_for(engine, "connect")
    def connected(connection: sqlite3.Connection, _record: Any) -> None:
        # Transactions are begun by us (below), so that a writer waits for its turn at the beginning instead of failing in the middle.
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {BUSY_MILLISECONDS}")
        for attempt in range(50):
            try:
                cursor.execute("PRAGMA journal_mode = WAL")
                break
            except sqlite3.OperationalError:
                # The change to WAL does not wait for other connections by itself.
                if attempt == 49:
                    raise
                time.sleep(0.1)
        cursor.execute("PRAGMA synchronous = NORMAL")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        immediate = connection.get_execution_options().get("oteo_write", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """Open a transaction that only reads."""
    with _translated(), engine.connect() as connection, connection.begin():
        yield connection


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """Open a transaction that writes; on SQLite it takes the one place of the writer at once.

    Raises
    ------
    Unavailable
        ``DATABASE_UNAVAILABLE``.
    ResourceExhausted
        ``DISK_FULL``.
    FailedPrecondition
        ``READ_ONLY_TARGET``.
    """
    with _translated(), engine.connect().execution_options(oteo_write=True) as connection, connection.begin():
        yield connection


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except IntegrityError:
        # A conflict means something to the caller.
        raise
    except DBAPIError as error:
        raise translate(error) from error


def translate(error: DBAPIError) -> OteoError:
    """Turn a database's error into ours."""
    text = str(error.orig)
    if "is full" in text or "No space left" in text:
        return ResourceExhausted("the database's disk is full", reason="DISK_FULL")
    if "readonly" in text or "read-only" in text:
        return FailedPrecondition("the database cannot be written to", reason="READ_ONLY_TARGET")
    return Unavailable(
        f"the database does not answer: {text.strip().splitlines()[0] if text.strip() else type(error).__name__}",
        reason="DATABASE_UNAVAILABLE",
    )
