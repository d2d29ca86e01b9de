"""The table of what callers have used of their quotas, shared by all gateways on one database."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from oteo_core.operations.database import open_engine, reading, writing
from oteo_core.operations.raising import raise_tables

IMAGES = "images"

_metadata = sa.MetaData()
_use = sa.Table(
    "quota_use",
    _metadata,
    sa.Column("caller", sa.String(255), primary_key=True),
    sa.Column("kind", sa.String(20), primary_key=True),
    # ISO 8601, UTC.
    sa.Column("day", sa.String(10), primary_key=True),
    sa.Column("used", sa.BigInteger, nullable=False),
    sa.Index("quota_use_day", "day"),
)
_VERSION = 1


class QuotaStore:
    """Use by caller and day, in SQLite or PostgreSQL; safe to use from several threads and processes.

    Parameters
    ----------
    database_url
        SQLAlchemy URL.

    Raises
    ------
    Unavailable
        ``DATABASE_UNAVAILABLE``, from every method.
    RuntimeError
        The table is newer than this code.
    """

    def __init__(self, database_url: str) -> None:
        self._engine = open_engine(database_url)
        raise_tables(self._engine, "quotas", _VERSION, make=_metadata.create_all, steps={})

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def add(self, day: str, used: Mapping[str, int], asked: Iterable[str] = ()) -> dict[str, int]:
        """Add to what callers used on a day, in one transaction, and give what they and others that are asked for have used in all."""
        names = sorted({*used, *asked})
        if not used:
            with reading(self._engine) as connection:
                return self._used(connection, day, names)
        with writing(self._engine) as connection:
            # In one order everywhere: two gateways that write the same rows must not wait for each other.
            for name in sorted(used):
                connection.execute(self._upsert(), {"caller": name, "kind": IMAGES, "day": day, "used": used[name]})
            return self._used(connection, day, names)

    def forget(self, before: str) -> None:
        """Delete what was used before a day."""
        with writing(self._engine) as connection:
            connection.execute(sa.delete(_use).where(_use.c.day < before))

    def _used(self, connection: sa.Connection, day: str, names: list[str]) -> dict[str, int]:
        query = sa.select(_use.c.caller, _use.c.used).where(_use.c.kind == IMAGES, _use.c.day == day, _use.c.caller.in_(names))
        return dict.fromkeys(names, 0) | {str(name): int(used) for name, used in connection.execute(query)}

    def _upsert(self) -> Any:
        insert: Any = postgresql.insert(_use) if self._engine.dialect.name == "postgresql" else sqlite.insert(_use)
        return insert.on_conflict_do_update(index_elements=["caller", "kind", "day"], set_={"used": _use.c.used + insert.excluded.used})
