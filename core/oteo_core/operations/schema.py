"""Tables of the operations, made once and raised version by version."""

from __future__ import annotations

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
    text,
)

from oteo_core.operations.raising import Step, raise_tables

VERSION = 2
"""Version of the tables that this code reads and writes."""

metadata = MetaData()

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


_STEPS: dict[int, Step] = {2: _add_traceparent}
"""What raises the tables to a version, by that version."""


def create(engine: Engine) -> None:
    """Make or raise the tables; several processes may do so at once.

    Raises
    ------
    RuntimeError
        The tables are newer than this code.
    """
    raise_tables(engine, "operations", VERSION, make=lambda connection: operations.create(connection, checkfirst=True), steps=_STEPS)
