"""Operations behave alike on SQLite and on PostgreSQL: rows, leases, pages, replays."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from waiting import wait_for

from oteo_core.errors import AlreadyExists, FailedPrecondition, NotFound, Unavailable
from oteo_core.operations import OperationStore, State, new_operation_id
from oteo_core.operations.store import NewOperation


def new(**fields: object) -> NewOperation:
    """Give a new operation, unlike any other."""
    identity = new_operation_id("toy")
    base = NewOperation(
        id=identity,
        service="toy",
        method="Count",
        caller="alice",
        request_id=identity,
        request_digest="d",
        request=b"\x00request",
        resource="",
        external=False,
        metadata=b"",
    )
    return replace(base, **fields)  # type: ignore[arg-type]


def test_a_row_comes_back_as_it_went_in(operation_store: OperationStore) -> None:
    row, fresh = operation_store.insert(new(cleanup=("uploads/x",), metadata=b"\xff\x00", deadline_seconds=60.0))
    assert fresh
    assert operation_store.get(row.id) == row
    assert (row.request, row.metadata, row.cleanup, row.state) == (b"\x00request", b"\xff\x00", ("uploads/x",), State.QUEUED)
    assert abs(row.create_time - time.time()) < 60
    assert row.deadline is not None
    assert abs(row.deadline - row.create_time - 60) < 1


def test_a_replay_finds_the_first(operation_store: OperationStore) -> None:
    first, _ = operation_store.insert(new(request_id="r1"))
    again, fresh = operation_store.insert(new(request_id="r1"))
    assert (again.id, fresh) == (first.id, False)
    with pytest.raises(AlreadyExists) as caught:
        operation_store.insert(new(request_id="r1", request_digest="other"))
    assert caught.value.reason == "REQUEST_ID_REUSED"
    assert caught.value.field == "request_id"
    # Another caller's or method's request of the same id is another request.
    assert operation_store.insert(new(request_id="r1", caller="bob"))[1]
    assert operation_store.insert(new(request_id="r1", method="Other"))[1]
    # Also after it has ended.
    operation_store.change(first.id, state=State.SUCCEEDED)
    assert operation_store.insert(new(request_id="r1"))[0].id == first.id


def test_one_live_operation_on_a_resource(operation_store: OperationStore) -> None:
    first, _ = operation_store.insert(new(resource="models/a"))
    with pytest.raises(AlreadyExists) as caught:
        operation_store.insert(new(resource="models/a"))
    assert caught.value.reason == "OPERATION_IN_PROGRESS"
    assert caught.value.metadata["operation"] == f"operations/{first.id}"
    assert operation_store.insert(new(resource="models/b"))[1]
    assert [row.id for row in operation_store.live("models/a")] == [first.id]
    operation_store.change(first.id, state=State.FAILED)
    assert operation_store.live("models/a") == []
    assert operation_store.insert(new(resource="models/a"))[1]


def test_of_many_at_once_one_wins(operation_store: OperationStore) -> None:
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: operation_store.insert(new(request_id="same", resource="models/x")), range(16)))
    assert len({row.id for row, _ in results}) == 1
    assert sum(fresh for _, fresh in results) == 1


def test_a_lease_keeps_others_out_until_it_runs_out(operation_store: OperationStore) -> None:
    row, _ = operation_store.insert(new())
    assert [found.id for found in operation_store.lease("toy", "one", 4.0)] == [row.id]
    assert operation_store.lease("toy", "two", 4.0) == []
    assert operation_store.lease("other", "two", 4.0) == []
    assert operation_store.change(row.id, owner="two", attempt=7) is None
    changed = operation_store.change(row.id, owner="one", attempt=1)
    assert changed is not None
    assert changed.attempt == 1
    assert [found.id for found in wait_for(lambda: operation_store.lease("toy", "two", 60))] == [row.id]
    # The one that slept finds that it has lost it.
    assert operation_store.change(row.id, owner="one", attempt=9) is None
    operation_store.release("two")
    assert [found.id for found in operation_store.lease("toy", "three", 60)] == [row.id]


def test_two_reconcilers_never_hold_the_same(operation_store: OperationStore) -> None:
    rows = [operation_store.insert(new())[0].id for _ in range(10)]
    held: dict[str, list[str]] = {}

    def take(owner: str) -> None:
        held[owner] = [row.id for row in operation_store.lease("toy", owner, 60)]

    threads = [threading.Thread(target=take, args=(name,)) for name in ("one", "two", "three")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(identity for mine in held.values() for identity in mine) == sorted(rows)


def test_an_ended_operation_does_not_change(operation_store: OperationStore) -> None:
    row, _ = operation_store.insert(new())
    ended = operation_store.change(row.id, state=State.SUCCEEDED, response=b"r")
    assert ended is not None
    assert ended.done
    assert ended.end_time is not None
    assert operation_store.change(row.id, state=State.FAILED) is None
    assert operation_store.cancel(row.id, "me", 5) is None
    assert operation_store.get(row.id).state is State.SUCCEEDED


def test_a_cancellation_takes_the_lease_and_stays(operation_store: OperationStore) -> None:
    row, _ = operation_store.insert(new())
    operation_store.lease("toy", "one", 60)
    asked = operation_store.cancel(row.id, "two", 60)
    assert asked is not None
    assert (asked.state, asked.lease_owner) == (State.CANCELLING, "two")
    first = asked.cancel_time
    # The old holder does not bring it back to running.
    assert operation_store.started(row.id, "one") is None
    assert operation_store.change(row.id, state=State.RUNNING) is None
    again = operation_store.cancel(row.id, "two", 60)
    assert again is not None
    assert again.cancel_time == first


def test_pages_are_newest_first_and_complete(operation_store: OperationStore) -> None:
    rows = []
    for number in range(7):
        rows.append(operation_store.insert(new(id=new_operation_id("toy", now=1000.0 + number)))[0].id)
    operation_store.change(rows[3], state=State.FAILED)
    operation_store.insert(new(service="other"))
    newest = list(reversed(rows))
    first = operation_store.page("toy", size=3)
    assert [row.id for row in first] == newest[:3]
    assert [row.id for row in operation_store.page("toy", size=10, before=first[-1].id)] == newest[3:]
    assert [row.id for row in operation_store.page("toy", size=10, done=True)] == [rows[3]]
    assert len(operation_store.page("toy", size=10, done=False)) == 6


def test_only_the_ended_is_deleted(operation_store: OperationStore) -> None:
    row, _ = operation_store.insert(new())
    with pytest.raises(FailedPrecondition) as caught:
        operation_store.delete(row.id)
    assert caught.value.reason == "OPERATION_NOT_DONE"
    operation_store.change(row.id, state=State.CANCELLED)
    operation_store.delete(row.id)
    with pytest.raises(NotFound):
        operation_store.get(row.id)
    with pytest.raises(NotFound):
        operation_store.delete(row.id)


def test_tables_are_made_once_by_many(database_url: str) -> None:
    with ThreadPoolExecutor(6) as pool:
        stores = list(pool.map(lambda _: OperationStore(database_url), range(6)))
    row, _ = stores[0].insert(new())
    assert stores[5].get(row.id).id == row.id
    for store in stores:
        store.close()


def test_tables_of_a_newer_release_are_not_touched(database_url: str) -> None:
    from sqlalchemy import text

    store = OperationStore(database_url)
    with store.engine.begin() as connection:
        connection.execute(text("UPDATE oteo_schema SET version = 99"))
    store.close()
    with pytest.raises(RuntimeError, match="newer"):
        OperationStore(database_url)


def test_writers_wait_for_each_other(database_url: str) -> None:
    stores = [OperationStore(database_url) for _ in range(4)]

    def work(store: OperationStore) -> None:
        for _ in range(25):
            row, _ = store.insert(new())
            store.change(row.id, attempt=1)
            store.lease("toy", row.id, 0.0)
            store.change(row.id, state=State.SUCCEEDED)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, stores))
    assert len(stores[0].page("toy", size=1000, done=True)) == 100
    for store in stores:
        store.close()


def test_a_database_that_is_away_is_unavailable() -> None:
    with pytest.raises(Unavailable) as caught:
        OperationStore("postgresql://oteo@127.0.0.1:1/none")
    assert caught.value.reason == "DATABASE_UNAVAILABLE"


def test_ids_sort_by_time() -> None:
    ids = [new_operation_id("toy", now=seconds) for seconds in (1.0, 2.0, 1_700_000_000.0, 1_700_000_000.5, 4_000_000_000.0)]
    assert ids == sorted(ids)
    assert all(len(identity) == len("toy-") + 20 for identity in ids)
    assert len({new_operation_id("toy", now=5.0) for _ in range(1000)}) == 1000


def test_tables_of_the_release_before_are_raised_and_keep_their_rows(database_url: str) -> None:
    from sqlalchemy import text

    store = OperationStore(database_url)
    row, _ = store.insert(new(traceparent="00-trace"))
    with store.engine.begin() as connection:
        connection.execute(text("ALTER TABLE operations DROP COLUMN traceparent"))
        connection.execute(text("UPDATE oteo_schema SET version = 1 WHERE part = 'operations'"))
    store.close()
    raised = OperationStore(database_url)
    assert raised.get(row.id) == replace(row, traceparent="")
    assert raised.insert(new(traceparent="00-trace"))[0].traceparent == "00-trace"
    raised.close()
