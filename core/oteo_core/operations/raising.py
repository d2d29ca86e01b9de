"""Tables that are made once and raised version by version, each part of the product its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sqlalchemy import Column, Connection, Engine, Integer, MetaData, String, Table, insert, select, text, update

from oteo_core.operations.database import writing

versions = Table("oteo_schema", MetaData(), Column("part", String(64), primary_key=True), Column("version", Integer, nullable=False))
"""Which version each part's tables are of."""

_LOCK = 7_304_115
"""Key of PostgreSQL's advisory lock around changes of tables; one for all parts, because the table of versions is theirs together."""

Step = Callable[[Connection], None]


def raise_tables(
    engine: Engine,
    part: str,
    version: int,
    *,
    make: Step,
    steps: Mapping[int, Step],
    unversioned: Callable[[Connection], int | None] = lambda _: None,
) -> None:
    """Make or raise a part's tables; several processes may do so at once.

    Parameters
    ----------
    engine
        The database.
    part
        Name of the part: ``"operations"``.
    version
        What the calling code reads and writes.
    make
        Makes all tables of `version`.
    steps
        What raises the tables to a version from the one before it.
    unversioned
        Tells which version tables have that were made before versions were written down; None where there are none.

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
        found = connection.execute(select(versions.c.version).where(versions.c.part == part)).scalar()
        if found is None:
            earlier = unversioned(connection)
            connection.execute(insert(versions).values(part=part, version=version if earlier is None else earlier))
            if earlier is None:
                make(connection)
                return
            found = earlier
        if found > version:
            raise RuntimeError(f"the tables of {part} are of version {found}, newer than this program knows ({version}): upgrade it")
        for number in range(found + 1, version + 1):
            steps[number](connection)
        if found < version:
            connection.execute(update(versions).where(versions.c.part == part).values(version=version))
