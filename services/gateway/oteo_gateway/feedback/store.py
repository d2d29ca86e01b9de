"""The table of corrections. An image is in it as a keyed hash, whatever the consent; the key is not in the database."""

from __future__ import annotations

from dataclasses import asdict

import sqlalchemy as sa

from oteo_core.errors import AlreadyExists, NotFound
from oteo_core.operations.database import open_engine, reading, writing
from oteo_core.operations.raising import raise_tables
from oteo_gateway.feedback.records import CorrectionRecord

_metadata = sa.MetaData()
_corrections = sa.Table(
    "corrections",
    _metadata,
    sa.Column("id", sa.String(63), primary_key=True),
    sa.Column("deployment", sa.String(63), nullable=False),
    sa.Column("uid", sa.String(64), nullable=False),
    sa.Column("model", sa.String(63), nullable=False),
    sa.Column("image", sa.String(64), nullable=False),
    sa.Column("group", sa.String(64), nullable=False),
    sa.Column("annotations", sa.LargeBinary, nullable=False),
    sa.Column("agreement", sa.Float, nullable=False),
    sa.Column("sample", sa.String(200), nullable=False),
    sa.Column("create_time", sa.Float, nullable=False),
    sa.Column("request_id", sa.String(64), nullable=False),
    sa.Column("fingerprint", sa.String(64), nullable=False),
    # Its sample is not in the dataset's table yet.
    sa.Column("pending", sa.Boolean, nullable=False),
    sa.Index("corrections_of", "uid", "id"),
    sa.Index(
        "corrections_request",
        "request_id",
        unique=True,
        sqlite_where=sa.text("request_id <> ''"),
        postgresql_where=sa.text("request_id <> ''"),
    ),
)
_PART, _VERSION = "feedback", 1
"""What the tables are called among all, and their version."""

MOST_COUNTED = 20_000
"""Latest corrections that the live accuracy is computed from."""


class CorrectionStore:
    """Corrections in SQLite or PostgreSQL; safe to use from several threads and processes.

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

    def add(self, record: CorrectionRecord, request_id: str, fingerprint: str) -> CorrectionRecord:
        """Record a correction; give the one that the same request made before, where it did.

        Raises
        ------
        AlreadyExists
            ``REQUEST_ID_REUSED``: another request had this id.
        """
        values = asdict(record) | {"request_id": request_id, "fingerprint": fingerprint, "pending": bool(record.sample)}
        try:
            with writing(self._engine) as connection:
                connection.execute(sa.insert(_corrections).values(values))
        except sa.exc.IntegrityError:
            found = self.replayed(request_id, fingerprint)
            if found is None:
                raise
            return found
        return record

    def replayed(self, request_id: str, fingerprint: str) -> CorrectionRecord | None:
        """Give what an earlier request with this id made; None where there was none. Errors as `add`."""
        if not request_id:
            return None
        with reading(self._engine) as connection:
            row = connection.execute(sa.select(_corrections).where(_corrections.c.request_id == request_id)).mappings().first()
        if row is None:
            return None
        if row["fingerprint"] != fingerprint:
            raise AlreadyExists(
                f"The request_id {request_id} was used for another correction already; take a new one.",
                reason="REQUEST_ID_REUSED",
                field="request_id",
            )
        return _read(row)

    def get(self, uid: str, correction: str) -> CorrectionRecord:
        """Give one correction of a deployment.

        Raises
        ------
        NotFound
            ``CORRECTION_NOT_FOUND``.
        """
        query = sa.select(_corrections).where(_corrections.c.uid == uid, _corrections.c.id == correction)
        with reading(self._engine) as connection:
            row = connection.execute(query).mappings().first()
        if row is None:
            raise NotFound(f"There is no correction {correction}.", reason="CORRECTION_NOT_FOUND", field="name")
        return _read(row)

    def find(self, correction: str) -> CorrectionRecord:
        """Give one correction by its id alone. Errors as `get`."""
        with reading(self._engine) as connection:
            row = connection.execute(sa.select(_corrections).where(_corrections.c.id == correction)).mappings().first()
        if row is None:
            raise NotFound(f"There is no correction {correction}.", reason="CORRECTION_NOT_FOUND", field="name")
        return _read(row)

    def latest(self, uid: str, limit: int, before: str = "") -> list[CorrectionRecord]:
        """Give a deployment's corrections, newest first; only those before an id, where one is given."""
        query = sa.select(_corrections).where(_corrections.c.uid == uid).order_by(_corrections.c.id.desc()).limit(limit)
        if before:
            query = query.where(_corrections.c.id < before)
        with reading(self._engine) as connection:
            return [_read(row) for row in connection.execute(query).mappings()]

    def judged(self, uid: str, model: str) -> list[tuple[str, str, float]]:
        """Give image, group and agreement of a model's latest corrections, one an image, the latest."""
        query = (
            sa.select(_corrections.c.image, _corrections.c.group, _corrections.c.agreement)
            .where(_corrections.c.uid == uid, _corrections.c.model == model)
            .order_by(_corrections.c.id.desc())
            .limit(MOST_COUNTED)
        )
        found: dict[str, tuple[str, str, float]] = {}
        with reading(self._engine) as connection:
            for image, group, agreement in connection.execute(query):
                found.setdefault(image, (image, group, float(agreement)))
        return list(found.values())

    def newest(self, uid: str, model: str) -> str:
        """Give the id of a model's newest correction; "" where there is none."""
        query = sa.select(sa.func.max(_corrections.c.id)).where(_corrections.c.uid == uid, _corrections.c.model == model)
        with reading(self._engine) as connection:
            return str(connection.execute(query).scalar() or "")

    def pending(self) -> dict[str, list[str]]:
        """Give the ids of corrections whose samples are in no table yet, by dataset."""
        query = sa.select(_corrections.c.id, _corrections.c.sample).where(_corrections.c.pending)
        found: dict[str, list[str]] = {}
        with reading(self._engine) as connection:
            for correction, sample in connection.execute(query):
                found.setdefault(sample.split("/")[1], []).append(correction)
        return found

    def settle(self, corrections: list[str]) -> None:
        """Note that the samples of these are in their dataset's table."""
        with writing(self._engine) as connection:
            for start in range(0, len(corrections), 500):
                part = corrections[start : start + 500]
                connection.execute(sa.update(_corrections).where(_corrections.c.id.in_(part)).values(pending=False))


def _read(row: sa.RowMapping) -> CorrectionRecord:
    return CorrectionRecord(**{name: row[name] for name in CorrectionRecord.__dataclass_fields__})
