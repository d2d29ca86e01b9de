"""The ends of operations: a training that was done or failed is news that no call brings.

The operations of all services lie in one database. One gateway at a time looks at those that have ended, writes of each, and notes that it has: killed
between the two, another writes of it again, which is better than never.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import sqlalchemy as sa
import structlog
from google.protobuf.message import DecodeError
from google.rpc import code_pb2, status_pb2

from oteo_core.auditlog import AuditLog, Event
from oteo_core.errors import OteoError, from_status
from oteo_core.operations import OperationRow, State, operation_name
from oteo_core.operations.database import db_now, open_engine, reading, writing
from oteo_core.operations.raising import raise_tables
from oteo_core.operations.schema import operations
from oteo_core.packages import ModelPackage

log = structlog.get_logger(__name__)

_metadata = sa.MetaData()
_noted = sa.Table(
    "audit_operations",
    _metadata,
    sa.Column("operation", sa.String(64), primary_key=True),
    sa.Column("time", sa.Float, nullable=False),
)
_SINCE = ""
"""Key of the row that says since when ends are written: what ended before there was a log is none of it."""
_PART, _VERSION = "audit", 1
"""What the table is called among all, and its version."""
_BATCH = 100


def create_tables(database_url: str) -> None:
    """Make the table of what was noted; several gateways may do so at once."""
    engine = open_engine(database_url)
    try:
        _create(engine)
    finally:
        engine.dispose()


def _create(engine: sa.Engine) -> None:
    raise_tables(engine, _PART, _VERSION, make=_make, steps={}, unversioned=_unversioned)


def _make(connection: sa.Connection) -> None:
    _metadata.create_all(connection)
    connection.execute(sa.insert(_noted).values(operation=_SINCE, time=db_now()))


def _unversioned(connection: sa.Connection) -> int | None:
    return 1 if sa.inspect(connection).has_table(_noted.name) else None


class OperationEnds:
    """Writes of operations that have ended.

    Parameters
    ----------
    database_url
        The database of all operations.
    audit
        The log.
    lease
        Tells whether this gateway may look now.
    read_package
        Gives a model's package by its id.
    period
        Between two looks, seconds.
    """

    def __init__(
        self,
        database_url: str,
        audit: AuditLog,
        lease: Callable[[], bool],
        read_package: Callable[[str], ModelPackage],
        *,
        period: float,
    ) -> None:
        self._engine = open_engine(database_url)
        _create(self._engine)
        self._audit = audit
        self._lease = lease
        self._read_package = read_package
        self._period = period

    async def run(self, beside: Callable[[], None]) -> None:
        """Look again and again, until cancelled; ``beside`` is called each time."""
        while True:
            try:
                beside()
                await asyncio.to_thread(self.look)
            except (OteoError, sa.exc.IntegrityError) as error:
                # The latter: another gateway, which had the lease meanwhile, has noted them as well.
                log.warning("operations_ends_not_written", error=str(error))
            await asyncio.sleep(self._period)

    def look(self) -> int:
        """Write of what has ended, and give how many those were.

        Raises
        ------
        OteoError
            The database or the log is away; the next look goes on.
        """
        if not self._lease():
            return 0
        with reading(self._engine) as connection:
            since = sa.select(_noted.c.time).where(_noted.c.operation == _SINCE).scalar_subquery()
            query = (
                sa.select(operations)
                .where(operations.c.end_time >= since, ~sa.exists().where(_noted.c.operation == operations.c.id))
                .order_by(operations.c.end_time)
                .limit(_BATCH)
            )
            rows = [OperationRow.from_mapping(row) for row in connection.execute(query).mappings()]
        if not rows:
            return 0
        last = [self._audit.append(self._event(row)) for row in rows][-1]
        self._audit.sync(last)
        with writing(self._engine) as connection:
            connection.execute(sa.insert(_noted), [{"operation": row.id, "time": row.end_time} for row in rows])
        return len(rows)

    def _event(self, row: OperationRow) -> Event:
        code, reason = "OK", ""
        if row.state is not State.SUCCEEDED:
            code, reason = "CANCELLED" if row.state is State.CANCELLED else "UNKNOWN", ""
            try:
                error = from_status(status_pb2.Status.FromString(row.error or b""))
                if row.error:
                    code, reason = code_pb2.Code.Name(error.code), error.reason
            except DecodeError:
                reason = "UNREADABLE"
        used: dict[str, str | int] = {"method": row.method, "operation": operation_name(row.id), "state": row.state.name}
        collection, _, name = row.resource.partition("/")
        if code == "OK" and collection == "models":
            used |= self._of_model(name)
        return Event(
            "operation",
            "operation.end",
            actor=row.caller,
            resource=row.resource,
            code=code,
            reason=reason,
            request=row.request_id,
            used=used,
        )

    def _of_model(self, model_id: str) -> dict[str, str | int]:
        try:
            package = self._read_package(model_id)
        except OteoError:
            # Deleted since.
            return {}
        return {"model_digest": package.digest, "dataset": package.dataset, "dataset_digest": package.dataset_digest}

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()
