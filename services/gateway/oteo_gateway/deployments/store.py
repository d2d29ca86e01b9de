"""The table of deployments, shared by all gateways on one database.

Only this module of the gateway knows SQL. What a deployment asks for is changed by callers, its status by whichever gateway holds
the reconciler's lease; the two are written apart, so that neither undoes the other.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from oteo_core.errors import AlreadyExists, NotFound
from oteo_core.operations.database import create_tables, db_now, open_engine, reading, writing
from oteo_gateway.deployments.records import Deployment, ModelPart, Replica, Serving

_metadata = sa.MetaData()
_deployments = sa.Table(
    "deployments",
    _metadata,
    sa.Column("id", sa.String(63), primary_key=True),
    sa.Column("uid", sa.String(64), nullable=False),
    sa.Column("spec", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("generation", sa.BigInteger, nullable=False),
    sa.Column("operation", sa.String(80), nullable=False, default=""),
    sa.Column("create_time", sa.Float, nullable=False, index=True),
    sa.Column("update_time", sa.Float, nullable=False),
)
# What a request_id did, so that the same one twice does it once; kept after the deployment is gone.
_requests = sa.Table(
    "deployment_requests",
    _metadata,
    sa.Column("method", sa.String(40), primary_key=True),
    sa.Column("request_id", sa.String(64), primary_key=True),
    sa.Column("fingerprint", sa.String(64), nullable=False),
    sa.Column("deployment", sa.String(63), nullable=False),
    sa.Column("create_time", sa.Float, nullable=False),
)
_leases = sa.Table(
    "gateway_leases",
    _metadata,
    sa.Column("name", sa.String(40), primary_key=True),
    sa.Column("owner", sa.String(80), nullable=False),
    sa.Column("expires", sa.Float, nullable=False),
)
_LOCK = 7_304_116
"""Key of PostgreSQL's advisory lock around the making of the tables."""


class DeploymentStore:
    """Deployments in SQLite or PostgreSQL; safe to use from several threads and processes.

    Parameters
    ----------
    database_url
        SQLAlchemy URL.
    """

    def __init__(self, database_url: str) -> None:
        self._engine = open_engine(database_url)
        create_tables(self._engine, _metadata, _LOCK)

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def get(self, deployment_id: str) -> Deployment:
        """Give one deployment.

        Raises
        ------
        NotFound
            ``DEPLOYMENT_NOT_FOUND``.
        """
        with reading(self._engine) as connection:
            row = connection.execute(sa.select(_deployments).where(_deployments.c.id == deployment_id)).mappings().first()
        if row is None:
            raise NotFound(f"There is no deployment deployments/{deployment_id}.", reason="DEPLOYMENT_NOT_FOUND", field="name")
        return _read(row)

    def list(self, limit: int | None = None, before: tuple[float, str] | None = None) -> list[Deployment]:
        """Give deployments, newest first.

        Parameters
        ----------
        limit
            At most so many; None: all.
        before
            Only those after this place in the list: creation time in seconds since 1970, and id.
        """
        query = sa.select(_deployments).order_by(_deployments.c.create_time.desc(), _deployments.c.id.desc())
        if before is not None:
            made, last = before
            query = query.where(
                sa.or_(_deployments.c.create_time < made, sa.and_(_deployments.c.create_time == made, _deployments.c.id < last))
            )
        with reading(self._engine) as connection:
            return [_read(row) for row in connection.execute(query.limit(limit)).mappings()]

    def replayed(self, method: str, request_id: str) -> tuple[str, str] | None:
        """Give the fingerprint and the deployment's id of an earlier request with this id; None where there was none."""
        if not request_id:
            return None
        query = sa.select(_requests.c.fingerprint, _requests.c.deployment).where(
            _requests.c.method == method, _requests.c.request_id == request_id
        )
        with reading(self._engine) as connection:
            row = connection.execute(query).first()
        return (str(row[0]), str(row[1])) if row is not None else None

    def create(self, deployment: Deployment, *, request_id: str = "", fingerprint: str = "") -> None:
        """Record a new deployment and, in the same transaction, the request that asked for it.

        Raises
        ------
        AlreadyExists
            ``DEPLOYMENT_EXISTS``: there is one of that id.
        """
        values = _spec_values(deployment) | {
            "id": deployment.id,
            "uid": deployment.uid,
            "operation": deployment.operation,
            "status": _status(deployment),
            "create_time": deployment.create_time.timestamp(),
        }
        try:
            with writing(self._engine) as connection:
                connection.execute(sa.insert(_deployments).values(values))
                _remember(connection, "CreateDeployment", request_id, fingerprint, deployment.id)
        except sa.exc.IntegrityError as error:
            raise AlreadyExists(
                f"There is a deployment {deployment.name} already; update it, or choose another deployment_id.",
                reason="DEPLOYMENT_EXISTS",
                field="deployment_id",
            ) from error

    def update(self, deployment: Deployment, *, expected_generation: int, request_id: str = "", fingerprint: str = "") -> bool:
        """Record what a deployment asks for now, and how it stands; False if somebody else changed it since `expected_generation`."""
        with writing(self._engine) as connection:
            changed = connection.execute(
                sa.update(_deployments)
                .where(_deployments.c.id == deployment.id, _deployments.c.generation == expected_generation)
                .values(_spec_values(deployment) | {"operation": deployment.operation, "status": _status(deployment)})
            ).rowcount
            if changed:
                _remember(connection, "UpdateDeployment", request_id, fingerprint, deployment.id)
        return bool(changed)

    def set_operation(self, deployment_id: str, generation: int, operation: str) -> None:
        """Record the operation that waits for a generation; an empty one says that it has ended."""
        with writing(self._engine) as connection:
            connection.execute(
                sa.update(_deployments)
                .where(_deployments.c.id == deployment_id, _deployments.c.generation == generation)
                .values(operation=operation)
            )

    def set_status(self, deployment: Deployment) -> None:
        """Record how a deployment stands, unless it was changed or deleted meanwhile."""
        with writing(self._engine) as connection:
            connection.execute(
                sa.update(_deployments)
                .where(_deployments.c.uid == deployment.uid, _deployments.c.generation == deployment.generation)
                .values(status=_status(deployment))
            )

    def delete(self, deployment_id: str, *, request_id: str = "", fingerprint: str = "") -> bool:
        """Forget a deployment; False if there was none."""
        with writing(self._engine) as connection:
            gone = connection.execute(sa.delete(_deployments).where(_deployments.c.id == deployment_id)).rowcount
            _remember(connection, "DeleteDeployment", request_id, fingerprint, deployment_id)
        return bool(gone)

    def lease(self, name: str, owner: str, seconds: float) -> bool:
        """Take or renew a lease; True while `owner` holds it. Times are the database's own, one clock for all."""
        values = {"owner": owner, "expires": db_now() + seconds}
        with writing(self._engine) as connection:
            free = sa.or_(_leases.c.owner == owner, _leases.c.expires < db_now())
            if connection.execute(sa.update(_leases).where(_leases.c.name == name, free).values(values)).rowcount:
                return True
            if connection.execute(sa.select(_leases.c.owner).where(_leases.c.name == name)).first() is not None:
                return False
        try:
            with writing(self._engine) as connection:
                connection.execute(sa.insert(_leases).values(name=name, **values))
        except sa.exc.IntegrityError:
            # Another gateway was first.
            return False
        return True

    def release(self, name: str, owner: str) -> None:
        """Give a lease back, so that another need not wait for its end."""
        with writing(self._engine) as connection:
            connection.execute(sa.delete(_leases).where(_leases.c.name == name, _leases.c.owner == owner))


def _status(deployment: Deployment) -> str:
    return json.dumps(
        {
            "replicas": [asdict(replica) for replica in deployment.replicas],
            "serving": asdict(deployment.serving) if deployment.serving is not None else None,
            "failure": list(deployment.failure),
        }
    )


def _remember(connection: sa.Connection, method: str, request_id: str, fingerprint: str, deployment_id: str) -> None:
    if not request_id:
        return
    values = {
        "method": method,
        "request_id": request_id,
        "fingerprint": fingerprint,
        "deployment": deployment_id,
        "create_time": time.time(),
    }
    connection.execute(sa.insert(_requests).values(values))


def _spec_values(deployment: Deployment) -> dict[str, Any]:
    spec = {
        "display_name": deployment.display_name,
        "models": [asdict(part) for part in deployment.models],
        "adapt": deployment.adapt,
        "translator": deployment.translator,
        "labels": deployment.labels,
    }
    return {"spec": json.dumps(spec), "generation": deployment.generation, "update_time": deployment.update_time.timestamp()}


def _read(row: Any) -> Deployment:
    spec = json.loads(row["spec"])
    status = json.loads(row["status"])
    deployment = Deployment(
        id=row["id"],
        uid=row["uid"],
        display_name=spec["display_name"],
        models=tuple(ModelPart(**part) for part in spec["models"]),
        adapt=spec["adapt"],
        translator=spec["translator"],
        labels=spec["labels"],
        generation=row["generation"],
        operation=row["operation"],
        create_time=datetime.fromtimestamp(row["create_time"], UTC),
        update_time=datetime.fromtimestamp(row["update_time"], UTC),
    )
    serving = status["serving"]
    return replace(
        deployment,
        replicas=tuple(Replica(**replica) for replica in status["replicas"]),
        serving=Serving(**serving) if serving is not None else None,
        failure=(status["failure"][0], status["failure"][1]),
    )
