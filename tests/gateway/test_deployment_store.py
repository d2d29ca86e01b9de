"""The table of deployments, on SQLite and on PostgreSQL; and the reconciler's lease between two gateways."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from engine_fixtures import postgres

from oteo_core.errors import AlreadyExists, NotFound
from oteo_gateway.deployments.records import Bridge, Deployment, ModelPart, Replica, Serving, ServingModel
from oteo_gateway.deployments.store import DeploymentStore

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
