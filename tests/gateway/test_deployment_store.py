"""The table of deployments, on SQLite and on PostgreSQL; and the reconciler's lease between two gateways."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from engine_fixtures import postgres

from oteo_core.errors import AlreadyExists, NotFound
from oteo_core.operations.database import open_engine, writing
from oteo_gateway.deployments.records import Bridge, Deployment, ModelPart, Replica, Revision, Serving, ServingModel
from oteo_gateway.deployments.shadows import ComparisonStore
from oteo_gateway.deployments.store import DeploymentStore
from oteo_gateway.migrate import migrate
from oteo_gateway.prediction.agreement import Sums

__all__ = ["postgres"]

SERVING = Serving((ServingModel(ModelPart("cells", "champion"), "d" * 64, Bridge("dark", "cells_dark", "e" * 64, "cells", "d" * 64)),), 1)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/oteo.db"
    return str(request.getfixturevalue("postgres").new_url())


@pytest.fixture
def store(url: str) -> Iterator[DeploymentStore]:
    found = DeploymentStore(url)
    yield found
    found.close()


def deployment(name: str = "cells", age: float = 0.0) -> Deployment:
    made = datetime(2026, 1, 1, tzinfo=UTC) - timedelta(seconds=age)
    return Deployment(
        id=name,
        uid=f"uid-{name}",
        display_name="Zellen",
        models=(ModelPart("cells", "champion"),),
        create_time=made,
        update_time=made,
        labels={"ward": "7"},
    )


def test_what_is_written_is_read(store: DeploymentStore) -> None:
    made = deployment()
    store.create(made)
    assert store.get("cells") == made
    standing = made.with_status((Replica("a:1", True, "", ("cells",)), Replica("b:1", False, "away")), SERVING, ("", ""))
    store.set_status(standing)
    assert store.get("cells") == standing
    assert standing.state == "DEGRADED"
    assert standing.message == "b:1: away"
    with pytest.raises(AlreadyExists) as caught:
        store.create(deployment())
    assert caught.value.reason == "DEPLOYMENT_EXISTS"
    with pytest.raises(NotFound):
        store.get("others")


def test_status_of_an_older_generation_or_an_earlier_namesake_is_not_written(store: DeploymentStore) -> None:
    old = deployment()
    store.create(old)
    new = replace(old, models=(ModelPart("better"),), generation=2)
    assert store.update(new, expected_generation=1)
    assert not store.update(new, expected_generation=1), "two changes of one generation"
    store.set_status(old.with_status((Replica("a:1", True, "", ("cells",)),), None, ("", "")))
    assert store.get("cells").replicas == ()
    assert store.delete("cells")
    store.create(replace(deployment(), uid="another"))
    store.set_status(new.with_status((Replica("a:1", True, "", ("cells",)),), None, ("", "")))
    assert store.get("cells").replicas == ()


def test_pages_are_newest_first_and_miss_none_of_the_same_time(store: DeploymentStore) -> None:
    for name in ("b", "c", "a"):
        store.create(deployment(name))
    store.create(deployment("older", age=60))
    found: list[str] = []
    before = None
    while page := store.list(1, before=before):
        found.append(page[0].id)
        before = (page[0].create_time.timestamp(), page[0].id)
    assert found == ["c", "b", "a", "older"]


def test_requests_are_remembered_after_the_deployment_is_gone(store: DeploymentStore) -> None:
    store.create(deployment(), request_id="r-1", fingerprint="f")
    store.delete("cells", request_id="r-2", fingerprint="g")
    assert store.replayed("CreateDeployment", "r-1") == ("f", "cells")
    assert store.replayed("DeleteDeployment", "r-2") == ("g", "cells")
    assert store.replayed("CreateDeployment", "r-2") is None
    assert store.replayed("CreateDeployment", "") is None


def test_one_of_many_gets_the_lease(url: str) -> None:
    stores = [DeploymentStore(url) for _ in range(6)]
    got: list[int] = []
    barrier = threading.Barrier(len(stores))

    def take(number: int) -> None:
        barrier.wait()
        if stores[number].lease("x", f"owner-{number}", 30):
            got.append(number)

    threads = [threading.Thread(target=take, args=(number,)) for number in range(len(stores))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 1
    holder, other = got[0], (got[0] + 1) % len(stores)
    assert stores[holder].lease("x", f"owner-{holder}", 30)
    assert not stores[other].lease("x", f"owner-{other}", 30)
    stores[holder].release("x", f"owner-{holder}")
    assert stores[other].lease("x", f"owner-{other}", -1), "a lease that has run out"
    assert stores[holder].lease("x", f"owner-{holder}", 30)
    for store in stores:
        store.close()


def test_tables_of_one_model_are_raised_with_their_rows(url: str) -> None:
    """What version 1 wrote, word for word, is read by this version as the same deployment."""
    engine = open_engine(url)
    with writing(engine) as connection:
        connection.execute(
            sa.text(
                "CREATE TABLE deployments (id VARCHAR(63) NOT NULL PRIMARY KEY, uid VARCHAR(64) NOT NULL, spec TEXT NOT NULL, status TEXT NOT NULL, "
                "generation BIGINT NOT NULL, operation VARCHAR(80) NOT NULL, create_time FLOAT NOT NULL, update_time FLOAT NOT NULL)"
            )
        )
        connection.execute(sa.text("CREATE INDEX ix_deployments_create_time ON deployments (create_time)"))
        connection.execute(
            sa.text(
                "CREATE TABLE deployment_requests (method VARCHAR(40) NOT NULL, request_id VARCHAR(64) NOT NULL, fingerprint VARCHAR(64) NOT NULL, "
                "deployment VARCHAR(63) NOT NULL, create_time FLOAT NOT NULL, PRIMARY KEY (method, request_id))"
            )
        )
        connection.execute(
            sa.text(
                "CREATE TABLE gateway_leases (name VARCHAR(40) NOT NULL PRIMARY KEY, owner VARCHAR(80) NOT NULL, expires FLOAT NOT NULL)"
            )
        )
        rows = [
            (
                "cells",
                '{"display_name": "Zellen", "models": [{"model_id": "cells-2", "alias": "champion"}], "adapt": 0, "translator": "", "labels": {"ward": "7"}}',
                '{"replicas": [{"address": "a:1", "ready": false, "message": "loading", "answers": true}, '
                '{"address": "b:1", "ready": false, "message": "away", "answers": false}], '
                '"serving": {"model_id": "cells", "digest": "' + "d" * 64 + '", "generation": 1}, "failure": ["", ""]}',
                2,
            ),
            (
                "fresh",
                '{"display_name": "", "models": [{"model_id": "fresh", "alias": ""}], "adapt": 0, "translator": "", "labels": {}}',
                '{"replicas": [], "serving": null, "failure": ["MODEL_LOAD_FAILED", "no graph"]}',
                1,
            ),
        ]
        for name, spec, status, generation in rows:
            connection.execute(
                sa.text(
                    "INSERT INTO deployments VALUES (:id, :uid, :spec, :status, :generation, 'operations/gateway-x', 1767225600, 1767225600)"
                ),
                {"id": name, "uid": f"uid-{name}", "spec": spec, "status": status, "generation": generation},
            )
        connection.execute(sa.text("INSERT INTO deployment_requests VALUES ('CreateDeployment', 'r-1', 'f', 'cells', 1767225600)"))
    engine.dispose()

    migrate(url)
    migrate(url)
    store = DeploymentStore(url)
    found = store.get("cells")
    assert found.models == (ModelPart("cells-2", "champion", 100, False),)
    assert found.serving == Serving((ServingModel(ModelPart("cells"), "d" * 64),), 1)
    assert found.replicas == (Replica("a:1", False, "loading", ("cells",)), Replica("b:1", False, "away", ()))
    assert (found.state, found.answering, found.labels, found.operation) == ("DEGRADED", ("a:1",), {"ward": "7"}, "operations/gateway-x")
    assert (found.generation, found.revisions, found.create_time) == (2, (), datetime(2026, 1, 1, tzinfo=UTC))
    assert store.get("fresh").state == "FAILED"
    assert store.replayed("CreateDeployment", "r-1") == ("f", "cells")
    changed = found.asking(models=(ModelPart("better"),), adapt=3, translator="translators/t", now=datetime(2026, 1, 2, tzinfo=UTC))
    assert store.update(changed, expected_generation=2)
    assert store.get("cells") == changed
    assert changed.revisions == (Revision(2, found.models, 0, "", found.update_time),)
    store.close()


def test_newer_tables_are_refused(url: str) -> None:
    DeploymentStore(url).close()
    engine = open_engine(url)
    with writing(engine) as connection:
        connection.execute(sa.text("UPDATE oteo_schema SET version = 99 WHERE part = 'deployments'"))
    engine.dispose()
    with pytest.raises(RuntimeError, match="newer than this program knows"):
        DeploymentStore(url)


def test_ten_revisions_are_kept_and_only_of_what_was_asked_for() -> None:
    found = deployment()
    for number in range(12):
        found = found.asking(models=(ModelPart(f"m{number}"),), adapt=0, translator="", now=found.update_time)
    same = found.asking(models=found.models, adapt=0, translator="", now=found.update_time)
    assert [revision.models[0].model_id for revision in same.revisions] == [f"m{number}" for number in range(10, 0, -1)]
    assert (same.generation, same.revisions[0].generation) == (14, 12)


def test_gateways_add_up_what_shadows_answered(url: str) -> None:
    """Several gateways at once lose nothing; what serves next begins anew; a deployment that is gone leaves nothing."""
    stores = [DeploymentStore(url) for _ in range(4)]
    served = replace(deployment().with_status((), SERVING, ("", "")))
    stores[0].create(served)
    one = Sums()
    one.compared(1.0, 2.0)
    one.compared(0.5, 0.5)
    one.missed = 3

    def add(store: DeploymentStore) -> None:
        for _ in range(5):
            ComparisonStore(store.engine).add({(served.uid, SERVING.mark, "next"): one, ("uid-gone", SERVING.mark, "next"): one})

    threads = [threading.Thread(target=add, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    comparisons = ComparisonStore(stores[0].engine)
    total = comparisons.of([served])[served.uid]["next"]
    assert (total.images, total.missed, total.agreed, total.ratios) == (40, 60, 30.0, {8: 20, -8: 20})
    other = Serving((replace(SERVING.models[0], digest="f" * 64),), 1)
    stores[1].set_status(served.with_status((), other, ("", "")))
    assert comparisons.of([stores[0].get("cells")]) == {}
    assert comparisons.of([served]) == {}
    comparisons.add({(served.uid, other.mark, "next"): one})
    stores[0].delete("cells")
    stores[0].create(served.with_status((), other, ("", "")))
    assert comparisons.of([stores[0].get("cells")]) == {}
    for store in stores:
        store.close()
