"""Rows of operations: made once per request, changed only under a lease."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, Row, Select, and_, delete, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from oteo_core.errors import AlreadyExists, FailedPrecondition, NotFound
from oteo_core.operations import schema
from oteo_core.operations.database import db_now, open_engine, reading, writing
from oteo_core.operations.ids import operation_name
from oteo_core.operations.model import DONE, OperationRow, State

_TABLE = schema.operations
_C = _TABLE.c


@dataclass(frozen=True, slots=True)
class NewOperation:
    """What a row begins with."""

    id: str
    service: str
    method: str
    caller: str
    request_id: str
    request_digest: str
    request: bytes
    resource: str
    external: bool
    metadata: bytes
    cleanup: Sequence[str] = ()
    deadline_seconds: float | None = None
    """Seconds from now, by the database's clock; None for no deadline."""
    lease_owner: str = ""
    lease_seconds: float = 0.0
    state: State = State.QUEUED
    traceparent: str = ""


class OperationStore:
    """The table of operations on SQLite or PostgreSQL; safe for several threads, processes and replicas.

    Parameters
    ----------
    database_url
        ``sqlite:///path`` or ``postgresql://…``. The tables are made where they are missing.

    Raises
    ------
    Unavailable
        ``DATABASE_UNAVAILABLE``, from every method: the database does not answer.
    """

    def __init__(self, database_url: str) -> None:
        self.engine: Engine = open_engine(database_url)
        """Other tables of the same database are reached through it."""
        schema.create(self.engine)

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()

    def insert(self, new: NewOperation) -> tuple[OperationRow, bool]:
        """Add a row, or find the one that the same request made before.

        Returns
        -------
        tuple
            The row, and whether it is new.

        Raises
        ------
        AlreadyExists
            ``REQUEST_ID_REUSED``: the id came before with another request. ``OPERATION_IN_PROGRESS``: an operation on the
            resource has not ended; its name is in the metadata.
        """
        values: dict[str, Any] = {
            "id": new.id,
            "service": new.service,
            "method": new.method,
            "caller": new.caller,
            "request_id": new.request_id,
            "request_digest": new.request_digest,
            "request": new.request,
            "resource": new.resource,
            "external": new.external,
            "state": int(new.state),
            "attempt": 0,
            "submitted": False,
            "lease_owner": new.lease_owner,
            "lease_expires": db_now() + new.lease_seconds,
            "cleanup": json.dumps(list(new.cleanup)),
            "metadata": new.metadata,
            "traceparent": new.traceparent,
            "create_time": db_now(),
            "update_time": db_now(),
            "deadline": None if new.deadline_seconds is None else db_now() + new.deadline_seconds,
        }
        # The loser of a race finds the winner's row; twice, since that row may end or be deleted between.
        for _ in range(5):
            earlier = self._earlier(new)
            if earlier is not None:
                return earlier, False
            try:
                with writing(self.engine) as connection:
                    connection.execute(insert(_TABLE).values(**values))
            except IntegrityError:
                busy = self.live(new.resource, new.service) if new.resource else []
                if busy and busy[0].request_id != new.request_id:
                    raise AlreadyExists(
                        f"{operation_name(busy[0].id)} works on {new.resource} and has not ended: wait for it or cancel it",
                        reason="OPERATION_IN_PROGRESS",
                        metadata={"operation": operation_name(busy[0].id), "resource": new.resource},
                    ) from None
                continue
            return self.get(new.id), True
        raise AlreadyExists(f"another operation on {new.resource or new.method} got in between: try again", reason="OPERATION_IN_PROGRESS")

    def _earlier(self, new: NewOperation) -> OperationRow | None:
        query = select(_TABLE).where(
            _C.service == new.service, _C.method == new.method, _C.caller == new.caller, _C.request_id == new.request_id
        )
        found = self._one(query)
        if found is not None and found.request_digest != new.request_digest:
            raise AlreadyExists(
                f"request_id {new.request_id!r} was used before with another {new.method} request; a new request needs a new id",
                reason="REQUEST_ID_REUSED",
                field="request_id",
                metadata={"operation": operation_name(found.id)},
            )
        return found

    def find_request(self, service: str, method: str, caller: str, request_id: str) -> OperationRow | None:
        """Give the row that a request made before, if there is one."""
        return self._one(select(_TABLE).where(_C.service == service, _C.method == method, _C.caller == caller, _C.request_id == request_id))

    def get(self, operation_id: str) -> OperationRow:
        """Give a row.

        Raises
        ------
        NotFound
            ``OPERATION_NOT_FOUND``.
        """
        found = self._one(select(_TABLE).where(_C.id == operation_id))
        if found is None:
            raise NotFound(
                f"there is no {operation_name(operation_id)}",
                reason="OPERATION_NOT_FOUND",
                metadata={"operation": operation_name(operation_id)},
            )
        return found

    def live(self, resource: str, service: str | None = None) -> list[OperationRow]:
        """Give the operations on a resource that have not ended, oldest first."""
        query = select(_TABLE).where(_C.resource == resource, _C.end_time.is_(None)).order_by(_C.id)
        return self._all(query if service is None else query.where(_C.service == service))

    def unfinished(self, service: str) -> list[OperationRow]:
        """Give all operations of a service that have not ended, oldest first."""
        return self._all(select(_TABLE).where(_C.service == service, _C.end_time.is_(None)).order_by(_C.id))

    def running(self, caller: str) -> int:
        """Give how many of a caller's operations, of all services on this database, have not ended."""
        query = select(func.count()).select_from(_TABLE).where(_C.caller == caller, _C.end_time.is_(None))
        with reading(self.engine) as connection:
            return int(connection.execute(query).scalar_one())

    def page(self, service: str, *, size: int, before: str = "", done: bool | None = None, caller: str | None = None) -> list[OperationRow]:
        """Give operations, newest first.

        Parameters
        ----------
        service
            Whose.
        size
            At most so many.
        before
            Only those older than this id; all without it.
        done
            Only those that have ended (True) or not (False); all with None.
        caller
            Only those that this caller began; all with None.
        """
        query = select(_TABLE).where(_C.service == service).order_by(_C.id.desc()).limit(size)
        if before:
            query = query.where(_C.id < before)
        if caller is not None:
            query = query.where(_C.caller == caller)
        if done is not None:
            query = query.where(_C.end_time.is_not(None) if done else _C.end_time.is_(None))
        return self._all(query)

    def lease(self, service: str, owner: str, seconds: float) -> list[OperationRow]:
        """Take or renew the lease on every live operation of a service that nobody else holds, and give those held.

        The database's clock decides, so replicas' own clocks may differ.
        """
        with writing(self.engine) as connection:
            connection.execute(
                update(_TABLE)
                .where(
                    _C.service == service,
                    _C.external.is_(False),
                    _C.end_time.is_(None),
                    or_(_C.lease_owner == owner, _C.lease_expires < db_now()),
                )
                .values(lease_owner=owner, lease_expires=db_now() + seconds)
            )
            query = select(_TABLE).where(_C.service == service, _C.external.is_(False), _C.end_time.is_(None), _C.lease_owner == owner)
            return [_row(row) for row in connection.execute(query.order_by(_C.id))]

    def release(self, owner: str) -> None:
        """Let go of all leases of an owner, so that another takes over at once."""
        with writing(self.engine) as connection:
            connection.execute(
                update(_TABLE).where(_C.lease_owner == owner, _C.end_time.is_(None)).values(lease_owner="", lease_expires=0.0)
            )

    def change(self, operation_id: str, *, owner: str | None = None, **values: Any) -> OperationRow | None:
        """Change a live row.

        Parameters
        ----------
        operation_id
            Which.
        owner
            Who must hold the lease for the change to happen; anybody with None.
        **values
            Columns; ``state`` of a done kind ends the operation.

        Returns
        -------
        OperationRow or None
            The row after the change; None where it has ended, is gone or is leased to another.
        """
        values = {**values, "update_time": db_now()}
        state = values.get("state")
        if state is not None:
            values["state"] = int(state)
            if State(state) in DONE:
                values["end_time"] = db_now()
        conditions = [_C.id == operation_id, _C.end_time.is_(None)]
        if owner is not None:
            conditions.append(_C.lease_owner == owner)
        # A row that is being cancelled does not go back to running, whoever was slow to notice.
        if state == State.RUNNING:
            conditions.append(_C.state != int(State.CANCELLING))
        with writing(self.engine) as connection:
            if connection.execute(update(_TABLE).where(and_(*conditions)).values(**values)).rowcount == 0:
                return None
            found = connection.execute(select(_TABLE).where(_C.id == operation_id)).one_or_none()
        return None if found is None else _row(found)

    def started(self, operation_id: str, owner: str) -> OperationRow | None:
        """Note that work has begun; the first time counts."""
        with writing(self.engine) as connection:
            connection.execute(
                update(_TABLE).where(_C.id == operation_id, _C.start_time.is_(None), _C.lease_owner == owner).values(start_time=db_now())
            )
        return self.change(operation_id, owner=owner, state=State.RUNNING)

    def cancel(self, operation_id: str, owner: str, seconds: float) -> OperationRow | None:
        """Note that an operation is to stop, and take its lease, whoever held it; None where it has ended already."""
        with writing(self.engine) as connection:
            connection.execute(
                update(_TABLE).where(_C.id == operation_id, _C.cancel_time.is_(None), _C.end_time.is_(None)).values(cancel_time=db_now())
            )
        return self.change(operation_id, state=State.CANCELLING, lease_owner=owner, lease_expires=db_now() + seconds)

    def sweep_due(self, service: str) -> list[OperationRow]:
        """Give the ended operations whose leftovers are to be deleted now."""
        return self._all(select(_TABLE).where(_C.service == service, _C.sweep_time < db_now()))

    def schedule_sweep(self, operation_id: str, seconds: float | None) -> None:
        """Set when leftovers are deleted, seconds from now; None for never again."""
        with writing(self.engine) as connection:
            connection.execute(
                update(_TABLE).where(_C.id == operation_id).values(sweep_time=None if seconds is None else db_now() + seconds)
            )

    def delete(self, operation_id: str) -> None:
        """Delete a row of an operation that has ended.

        Raises
        ------
        NotFound
            ``OPERATION_NOT_FOUND``.
        FailedPrecondition
            ``OPERATION_NOT_DONE``.
        """
        with writing(self.engine) as connection:
            gone = connection.execute(delete(_TABLE).where(_C.id == operation_id, _C.end_time.is_not(None))).rowcount
        if not gone:
            self.get(operation_id)
            raise FailedPrecondition(
                f"{operation_name(operation_id)} has not ended: cancel it first", reason="OPERATION_NOT_DONE", field="name"
            )

    def now(self) -> float:
        """Give the database's clock, in seconds since 1970."""
        with reading(self.engine) as connection:
            return float(connection.execute(select(db_now())).scalar_one())

    def _one(self, query: Select[Any]) -> OperationRow | None:
        found = self._all(query)
        return found[0] if found else None

    def _all(self, query: Select[Any]) -> list[OperationRow]:
        with reading(self.engine) as connection:
            return [_row(row) for row in connection.execute(query)]


def _row(row: Row[Any]) -> OperationRow:
    return OperationRow.from_mapping(row._mapping)
