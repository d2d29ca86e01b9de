"""Tables of the operations, made once and raised version by version."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    Engine,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    insert,
    select,
    text,
    update,
)

from oteo_core.operations.database import writing

VERSION = 2
"""Version of the tables that this code reads and writes."""

metadata = MetaData()

versions = Table("oteo_schema", metadata, Column("part", String(64), primary_key=True), Column("version", Integer, nullable=False))

operations = Table(
    "operations",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("service", String(32), nullable=False),
    Column("method", String(128), nullable=False),
    Column("caller", String(255), nullable=False, default=""),
    Column("request_id", String(255), nullable=False),
    Column("request_digest", String(64), nullable=False),
    Column("request", LargeBinary, nullable=False),
    Column("resource", String(255), nullable=False, default=""),
    Column("external", Boolean, nullable=False, default=False),
    Column("state", Integer, nullable=False),
    Column("attempt", Integer, nullable=False, default=0),
    Column("submitted", Boolean, nullable=False, default=False),
    Column("lease_owner", String(128), nullable=False, default=""),
    Column("lease_expires", Float, nullable=False, default=0.0),
    Column("cleanup", Text, nullable=False, default="[]"),
    Column("metadata", LargeBinary, nullable=False),
    Column("response", LargeBinary),
    Column("error", LargeBinary),
    Column("create_time", Float, nullable=False),
    Column("start_time", Float),
    Column("update_time", Float, nullable=False),
    Column("cancel_time", Float),
    Column("end_time", Float),
    Column("deadline", Float),
    Column("sweep_time", Float),
    Column("traceparent", String(128), nullable=False, server_default=""),
    # A replay of a call finds the first one.
    Index("operations_request", "service", "method", "caller", "request_id", unique=True),
    # At most one live operation on a resource: the database itself refuses the second.
    Index(
        "operations_resource",
        "service",
        "resource",
        unique=True,
        sqlite_where=text("resource <> '' AND end_time IS NULL"),
        postgresql_where=text("resource <> '' AND end_time IS NULL"),
    ),
    Index("operations_live", "service", "end_time"),
)
"""One row an operation. Times are seconds since 1970 by the database's clock."""


def _add_traceparent(connection: Connection) -> None:
    connection.execute(text("ALTER TABLE operations ADD COLUMN traceparent VARCHAR(128) NOT NULL DEFAULT ''"))


_MIGRATIONS: dict[int, Callable[[Connection], None]] = {2: _add_traceparent}
"""What raises the tables to a version, by that version; `create` runs those after the version found."""

_LOCK = 7_304_115
"""Key of PostgreSQL's advisory lock around changes of the tables."""


def create(engine: Engine) -> None:
    """Make or raise the tables; several processes may do so at once.

    Raises
    ------
    RuntimeError
        The tables are newer than this code.
    """
    with writing(engine) as connection:
        # SQLite: the transaction is the lock. PostgreSQL: this is, until the transaction's end.
        if engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        versions.create(connection, checkfirst=True)
        found = connection.execute(select(versions.c.version).where(versions.c.part == "operations")).scalar()
        if found is None:
            operations.create(connection, checkfirst=True)
            connection.execute(insert(versions).values(part="operations", version=VERSION))
            return
        if found > VERSION:
            raise RuntimeError(f"the tables of operations are of version {found}, newer than this program knows ({VERSION}): upgrade it")
        for version in range(found + 1, VERSION + 1):
            _MIGRATIONS[version](connection)
        if found < VERSION:
            connection.execute(update(versions).where(versions.c.part == "operations").values(version=VERSION))
