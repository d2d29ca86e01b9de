"""What shadows were found to answer, in the database: every gateway adds what it has seen."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

import sqlalchemy as sa

from oteo_core.operations.database import reading, writing
from oteo_gateway.deployments.records import Deployment
from oteo_gateway.deployments.schema import deployments, shadows
from oteo_gateway.prediction.agreement import Sums


class ComparisonStore:
    """Sums by deployment, what served, and shadow.

    Parameters
    ----------
    engine
        The database of `oteo_gateway.deployments.store.DeploymentStore`, whose tables are there.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def add(self, sums: Mapping[tuple[str, str, str], Sums]) -> None:
        """Add to what is there, all or nothing; what belongs to a deployment that is gone is dropped."""
        with writing(self._engine) as connection:
            # Rows are always taken in one order, and locked before they are read: two gateways add one after the other.
            for uid, mark, model in sorted(sums):
                there = sa.select(deployments.c.id).where(deployments.c.uid == uid).with_for_update()
                if connection.execute(there).first() is None:
                    continue
                key = (shadows.c.uid == uid, shadows.c.mark == mark, shadows.c.model == model)
                row = connection.execute(sa.select(shadows).where(*key)).mappings().first()
                total = _read(row) if row is not None else Sums()
                total.add(sums[uid, mark, model])
                values = {
                    "images": total.images,
                    "missed": total.missed,
                    "agreed": total.agreed,
                    "agreed_squares": total.squares,
                    "ratios": json.dumps(total.ratios),
                }
                if row is None:
                    connection.execute(sa.insert(shadows).values(uid=uid, mark=mark, model=model, **values))
                else:
                    connection.execute(sa.update(shadows).where(*key).values(values))

    def of(self, found: Iterable[Deployment]) -> dict[str, dict[str, Sums]]:
        """Give the sums of what serves now, by the deployment's uid and the shadow's model id."""
        marks = {deployment.uid: deployment.serving.mark for deployment in found if deployment.serving is not None}
        if not marks:
            return {}
        query = sa.select(shadows).where(shadows.c.uid.in_(list(marks)))
        sums: dict[str, dict[str, Sums]] = {}
        with reading(self._engine) as connection:
            for row in connection.execute(query).mappings():
                if marks[row["uid"]] == row["mark"]:
                    sums.setdefault(row["uid"], {})[row["model"]] = _read(row)
        return sums


def _read(row: sa.RowMapping) -> Sums:
    ratios = {int(place): int(count) for place, count in json.loads(row["ratios"]).items()}
    return Sums(row["images"], row["missed"], row["agreed"], row["agreed_squares"], ratios)
