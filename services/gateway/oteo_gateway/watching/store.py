"""The tables of the watch, shared by all gateways on one database: batches of statistics, and how each watch stands."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import sqlalchemy as sa

from oteo_core.operations.database import db_now, open_engine, reading, writing
from oteo_core.operations.raising import raise_tables
from oteo_gateway.watching.collector import Batch, Watched
from oteo_gateway.watching.records import WatchState

_metadata = sa.MetaData()
_batches = sa.Table(
    "watch_batches",
    _metadata,
    sa.Column("number", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
    sa.Column("uid", sa.String(64), nullable=False),
    sa.Column("mark", sa.String(16), nullable=False),
    sa.Column("model", sa.String(63), nullable=False),
    sa.Column("images", sa.Integer, nullable=False),
    sa.Column("classes", sa.Integer, nullable=False),
    sa.Column("statistics", sa.LargeBinary, nullable=False),
    sa.Column("answers", sa.LargeBinary, nullable=False),
    sa.Column("create_time", sa.Float, nullable=False),
    sa.Index("watch_batches_of", "uid", "mark", "model", "number"),
    sqlite_autoincrement=True,
)
_states = sa.Table(
    "watch_states",
    _metadata,
    sa.Column("uid", sa.String(64), primary_key=True),
    sa.Column("mark", sa.String(16), primary_key=True),
    sa.Column("model", sa.String(63), primary_key=True),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("update_time", sa.Float, nullable=False),
)
_PART, _VERSION = "watch", 1
"""What the tables are called among all, and their version."""


class WatchStore:
    """The watch in SQLite or PostgreSQL; safe to use from several threads and processes.

    Parameters
    ----------
    database_url
        SQLAlchemy URL.
    """

    def __init__(self, database_url: str) -> None:
        self._engine = open_engine(database_url)
        raise_tables(self._engine, _PART, _VERSION, make=_metadata.create_all, steps={})

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def add(self, found: Mapping[Watched, Batch]) -> None:
        """Write batches, all in one transaction."""
        rows = [
            {
                **watched._asdict(),
                "images": len(batch.statistics),
                "classes": batch.answers.shape[1],
                "statistics": batch.statistics.astype("<f4").tobytes(),
                "answers": np.packbits(batch.answers).tobytes(),
            }
            for watched, batch in found.items()
        ]
        if rows:
            with writing(self._engine) as connection:
                for row in rows:
                    connection.execute(sa.insert(_batches).values(**row, create_time=db_now()))

    def latest(self, watched: Watched, images: int) -> tuple[Batch | None, dict[int, int]]:
        """Give the latest batches that hold so many images, put together, and the number of images of every batch that is kept."""
        of = _of(_batches, watched)
        with reading(self._engine) as connection:
            counts = {
                int(number): int(count)
                for number, count in connection.execute(
                    sa.select(_batches.c.number, _batches.c.images).where(of).order_by(_batches.c.number)
                )
            }
            wanted: list[int] = []
            total = 0
            for number in sorted(counts, reverse=True):
                if total >= images:
                    break
                wanted.append(number)
                total += counts[number]
            if not wanted:
                return None, counts
            rows = connection.execute(
                sa.select(_batches.c.images, _batches.c.classes, _batches.c.statistics, _batches.c.answers)
                .where(of, _batches.c.number >= min(wanted))
                .order_by(_batches.c.number)
            ).all()
        return _joined(rows), counts

    def prune(self, watched: Watched, before: int) -> None:
        """Delete batches of lower numbers."""
        with writing(self._engine) as connection:
            connection.execute(sa.delete(_batches).where(_of(_batches, watched), _batches.c.number < before))

    def waiting(self) -> dict[Watched, int]:
        """Give the number of the last batch of everything that has batches."""
        key = (_batches.c.uid, _batches.c.mark, _batches.c.model)
        with reading(self._engine) as connection:
            rows = connection.execute(sa.select(*key, sa.func.max(_batches.c.number)).group_by(*key)).all()
        return {Watched(uid, mark, model): int(last) for uid, mark, model, last in rows}

    def states(self, uid: str | None = None) -> dict[Watched, WatchState]:
        """Give how all watches stand, or those of one deployment."""
        query = sa.select(_states)
        if uid is not None:
            query = query.where(_states.c.uid == uid)
        with reading(self._engine) as connection:
            rows = connection.execute(query).mappings().all()
        return {Watched(row["uid"], row["mark"], row["model"]): WatchState.from_dict(json.loads(row["state"])) for row in rows}

    def keep(self, watched: Watched, state: WatchState) -> None:
        """Write how a watch stands."""
        values = {"state": json.dumps(state.to_dict()), "update_time": db_now()}
        with writing(self._engine) as connection:
            if not connection.execute(sa.update(_states).where(_of(_states, watched)).values(values)).rowcount:
                # The reconciler's lease lets one gateway at a time write.
                connection.execute(sa.insert(_states).values(**watched._asdict(), **values))

    def forget(self, gone: Iterable[Watched]) -> None:
        """Delete what is kept of watches that have ended."""
        with writing(self._engine) as connection:
            for watched in gone:
                for table in (_batches, _states):
                    connection.execute(sa.delete(table).where(_of(table, watched)))


def _of(table: sa.Table, watched: Watched) -> sa.ColumnElement[bool]:
    return sa.and_(table.c.uid == watched.uid, table.c.mark == watched.mark, table.c.model == watched.model)


def _joined(rows: Iterable[Any]) -> Batch:
    statistics, answers = [], []
    for images, classes, measured, found in rows:
        statistics.append(np.frombuffer(measured, dtype="<f4").reshape(images, -1))
        answers.append(
            np.unpackbits(np.frombuffer(found, dtype=np.uint8), count=images * classes).astype(np.bool_).reshape(images, classes)
        )
    return Batch(np.concatenate(statistics), np.concatenate(answers))
