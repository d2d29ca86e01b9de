"""Prometheus is told of operations that are not done, and of how long the most silent of them has been so."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

from prometheus_client import REGISTRY

from oteo_core.errors import NotFound
from oteo_core.operations.model import OperationRow, State
from oteo_core.operations.reconciler import Reconciler
from oteo_core.settings import CoreSettings


def row(identity: str, state: State, update_time: float) -> OperationRow:
    empty: dict[str, Any] = {field.name: None for field in dataclasses.fields(OperationRow)}
    return OperationRow(**{**empty, "id": identity, "service": "figures", "state": state, "update_time": update_time})


def shown(state: str = "") -> float | None:
    labels = {"service": "figures"}
    if state:
        return REGISTRY.get_sample_value("oteo_operations_unfinished", {**labels, "state": state})
    return REGISTRY.get_sample_value("oteo_operations_silent_seconds", labels)


def test_figures_follow_the_operations_of_this_replica() -> None:
    rows: list[OperationRow] = []

    def gone(identity: str) -> OperationRow:
        raise NotFound(identity)

    store: Any = SimpleNamespace(lease=lambda *_: rows, sweep_due=lambda *_: [], now=lambda: 1000.0, get=gone)
    reconciler = Reconciler(CoreSettings(), "figures", store, SimpleNamespace(), None, "me", "module")  # type: ignore[arg-type]
    rows[:] = [row("a", State.RUNNING, 990.0), row("b", State.RUNNING, 400.0), row("c", State.QUEUED, 995.0)]
    reconciler.once()
    assert (shown("RUNNING"), shown("QUEUED"), shown("CANCELLING"), shown()) == (2, 1, 0, 600.0)
    rows.clear()
    reconciler.once()
    assert (shown("RUNNING"), shown("QUEUED"), shown()) == (0, 0, 0)
