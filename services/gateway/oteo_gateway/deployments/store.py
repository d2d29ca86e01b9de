"""The table of deployments, shared by all gateways on one database.

Only this module, `shadows` and `schema` know SQL here. What a deployment asks for is changed by callers, its status by whichever gateway holds
the reconciler's lease; the two are written apart, so that neither undoes the other.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from oteo_core.errors import AlreadyExists, NotFound
from oteo_core.operations.database import db_now, open_engine, reading, writing
from oteo_gateway.deployments.records import Bridge, Deployment, ModelPart, Replica, Revision, Serving, ServingModel
from oteo_gateway.deployments.schema import create, deployments, leases, requests, shadows


class DeploymentStore:
    """Deployments in SQLite or PostgreSQL; safe to use from several threads and processes.

    Parameters
    ----------
    database_url
        SQLAlchemy URL.
    """

    def __init__(self, database_url: str) -> None:
        self._engine = open_engine(database_url)
        create(self._engine)

    @property
    def engine(self) -> sa.Engine:
        """The database, for what is kept beside the deployments."""
        return self._engine

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
            row = connection.execute(sa.select(deployments).where(deployments.c.id == deployment_id)).mappings().first()
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
        query = sa.select(deployments).order_by(deployments.c.create_time.desc(), deployments.c.id.desc())
        if before is not None:
            made, last = before
            query = query.where(
                sa.or_(deployments.c.create_time < made, sa.and_(deployments.c.create_time == made, deployments.c.id < last))
            )
        with reading(self._engine) as connection:
            return [_read(row) for row in connection.execute(query.limit(limit)).mappings()]

    def replayed(self, method: str, request_id: str) -> tuple[str, str] | None:
        """Give the fingerprint and the deployment's id of an earlier request with this id; None where there was none."""
        if not request_id:
            return None
        query = sa.select(requests.c.fingerprint, requests.c.deployment).where(
            requests.c.method == method, requests.c.request_id == request_id
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
                connection.execute(sa.insert(deployments).values(values))
                _remember(connection, "CreateDeployment", request_id, fingerprint, deployment.id)
        except sa.exc.IntegrityError as error:
            raise AlreadyExists(
                f"There is a deployment {deployment.name} already; update it, or choose another deployment_id.",
                reason="DEPLOYMENT_EXISTS",
                field="deployment_id",
            ) from error

    def update(
        self,
        deployment: Deployment,
        *,
        expected_generation: int,
        method: str = "UpdateDeployment",
        request_id: str = "",
        fingerprint: str = "",
    ) -> bool:
        """Record what a deployment asks for now, and how it stands; False if somebody else changed it since `expected_generation`."""
        with writing(self._engine) as connection:
            changed = connection.execute(
                sa.update(deployments)
                .where(deployments.c.id == deployment.id, deployments.c.generation == expected_generation)
                .values(_spec_values(deployment) | {"operation": deployment.operation, "status": _status(deployment)})
            ).rowcount
            if changed:
                _remember(connection, method, request_id, fingerprint, deployment.id)
        return bool(changed)

    def set_operation(self, deployment_id: str, generation: int, operation: str) -> None:
        """Record the operation that waits for a generation; an empty one says that it has ended."""
        with writing(self._engine) as connection:
            connection.execute(
                sa.update(deployments)
                .where(deployments.c.id == deployment_id, deployments.c.generation == generation)
                .values(operation=operation)
            )

    def set_status(self, deployment: Deployment) -> None:
        """Record how a deployment stands, unless it was changed or deleted meanwhile."""
        with writing(self._engine) as connection:
            changed = connection.execute(
                sa.update(deployments)
                .where(deployments.c.uid == deployment.uid, deployments.c.generation == deployment.generation)
                .values(status=_status(deployment))
            ).rowcount
            if changed and deployment.serving is not None:
                # What was compared before belongs to other models or other shares.
                connection.execute(sa.delete(shadows).where(shadows.c.uid == deployment.uid, shadows.c.mark != deployment.serving.mark))

    def delete(self, deployment_id: str, *, request_id: str = "", fingerprint: str = "") -> bool:
        """Forget a deployment; False if there was none."""
        with writing(self._engine) as connection:
            uids = sa.select(deployments.c.uid).where(deployments.c.id == deployment_id)
            connection.execute(sa.delete(shadows).where(shadows.c.uid.in_(uids)))
            gone = connection.execute(sa.delete(deployments).where(deployments.c.id == deployment_id)).rowcount
            _remember(connection, "DeleteDeployment", request_id, fingerprint, deployment_id)
        return bool(gone)

    def lease(self, name: str, owner: str, seconds: float) -> bool:
        """Take or renew a lease; True while `owner` holds it. Times are the database's own, one clock for all."""
        values = {"owner": owner, "expires": db_now() + seconds}
        with writing(self._engine) as connection:
            free = sa.or_(leases.c.owner == owner, leases.c.expires < db_now())
            if connection.execute(sa.update(leases).where(leases.c.name == name, free).values(values)).rowcount:
                return True
            if connection.execute(sa.select(leases.c.owner).where(leases.c.name == name)).first() is not None:
                return False
        try:
            with writing(self._engine) as connection:
                connection.execute(sa.insert(leases).values(name=name, **values))
        except sa.exc.IntegrityError:
            # Another gateway was first.
            return False
        return True

    def release(self, name: str, owner: str) -> None:
        """Give a lease back, so that another need not wait for its end."""
        with writing(self._engine) as connection:
            connection.execute(sa.delete(leases).where(leases.c.name == name, leases.c.owner == owner))


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
    connection.execute(sa.insert(requests).values(values))


def _spec_values(deployment: Deployment) -> dict[str, Any]:
    spec = {
        "display_name": deployment.display_name,
        "models": [asdict(part) for part in deployment.models],
        "adapt": deployment.adapt,
        "translator": deployment.translator,
        "labels": deployment.labels,
    }
    revisions = [{**asdict(revision), "create_time": revision.create_time.timestamp()} for revision in deployment.revisions]
    return {
        "spec": json.dumps(spec),
        "generation": deployment.generation,
        "update_time": deployment.update_time.timestamp(),
        "revisions": json.dumps(revisions),
    }


def _read(row: Any) -> Deployment:
    spec = json.loads(row["spec"])
    status = json.loads(row["status"])
    return Deployment(
        id=row["id"],
        uid=row["uid"],
        display_name=spec["display_name"],
        models=_parts(spec["models"]),
        adapt=spec["adapt"],
        translator=spec["translator"],
        labels=spec["labels"],
        generation=row["generation"],
        operation=row["operation"],
        create_time=datetime.fromtimestamp(row["create_time"], UTC),
        update_time=datetime.fromtimestamp(row["update_time"], UTC),
        replicas=tuple(Replica(**{**replica, "answers": tuple(replica["answers"])}) for replica in status["replicas"]),
        serving=_serving(status["serving"]) if status["serving"] is not None else None,
        failure=(status["failure"][0], status["failure"][1]),
        revisions=tuple(
            Revision(**{**one, "models": _parts(one["models"]), "create_time": datetime.fromtimestamp(one["create_time"], UTC)})
            for one in json.loads(row["revisions"])
        ),
    )


def _parts(listed: list[dict[str, Any]]) -> tuple[ModelPart, ...]:
    return tuple(ModelPart(**part) for part in listed)


def _serving(given: dict[str, Any]) -> Serving:
    models = tuple(
        ServingModel(ModelPart(**one["part"]), one["digest"], Bridge(**one["bridge"]) if one["bridge"] else None) for one in given["models"]
    )
    return Serving(models, given["generation"])
