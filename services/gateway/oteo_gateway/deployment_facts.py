"""What is known of a deployment beside what it asks for: the watch for shift and the accuracy in use, as messages and metrics."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime

from oteo_core.errors import NotFound
from oteo_core.packages import MetricValue, ModelPackage
from oteo_core.packages.proto import metric_to_proto
from oteo_gateway import metrics
from oteo_gateway.deployments.records import Deployment
from oteo_gateway.feedback.keeper import CorrectionKeeper
from oteo_gateway.watching import words
from oteo_gateway.watching.collector import Watched
from oteo_gateway.watching.records import WatchState
from oteo_gateway.watching.store import WatchStore
from oteo_gateway.watching.watcher import watched_of
from oteo_protos.gateway.v1 import deployment_pb2

_TRUSTED_SECONDS = 30.0


class DeploymentFacts:
    """Fills in what the watch and the readers found.

    Parameters
    ----------
    watches
        The tables of the watch.
    keeper
        Corrections.
    read_package
        Gives a model's package by its id; raises NotFound.
    rate
        False alarms for each 10,000 images that are accepted.
    """

    def __init__(self, watches: WatchStore, keeper: CorrectionKeeper, read_package: Callable[[str], ModelPackage], rate: float) -> None:
        self._watches = watches
        self._keeper = keeper
        self._read_package = read_package
        self._rate = rate
        self._packages: dict[str, tuple[float, ModelPackage | None]] = {}

    def fill(self, message: deployment_pb2.Deployment, deployment: Deployment) -> deployment_pb2.Deployment:
        """Add the shift and the live accuracy to a deployment's message."""
        package = self._package(main_model(deployment))
        states = self._watches.states(deployment.uid)
        state = leading([states[watched] for watched in watched_of(deployment) if watched in states])
        message.shift.CopyFrom(shift_message(state, self._rate, deployment.id, known=package is None or package.reference is not None))
        accuracy = self._keeper.accuracy(deployment, package) if package is not None else None
        if accuracy is not None:
            message.live_accuracy.CopyFrom(metric_to_proto(accuracy))
        return message

    def tell_accuracies(self, deployments: Iterable[Deployment]) -> None:
        """Give the accuracies in use to the metrics."""
        found: dict[tuple[str, str], MetricValue] = {}
        for deployment in deployments:
            package = self._package(main_model(deployment))
            accuracy = self._keeper.accuracy(deployment, package) if package is not None else None
            if accuracy is not None and package is not None:
                found[deployment.id, package.id] = accuracy
        metrics.tell_accuracies(found)

    def _package(self, model: str) -> ModelPackage | None:
        now = time.monotonic()
        known = self._packages.get(model)
        if known is None or now - known[0] > _TRUSTED_SECONDS:
            try:
                known = now, self._read_package(model)
            except NotFound:
                known = now, None
            self._packages[model] = known
        return known[1]


def main_model(deployment: Deployment) -> str:
    """Give the id of the model that answers most: of those that serve, or of those asked for where none does yet."""
    serving = deployment.serving
    parts = [model.part for model in serving.models] if serving is not None else list(deployment.models)
    return max((part for part in parts if not part.shadow), key=lambda part: part.percent).model_id


def leading(states: list[WatchState]) -> WatchState:
    """Give the state to show where several models are watched: one that rings before one that does not, then the least p-value."""
    return min(
        states, key=lambda state: (not state.alarm.on, state.shown.p_value if state.shown is not None else 2.0), default=WatchState()
    )


def tell_watches(deployments: Iterable[Deployment], states: dict[Watched, WatchState]) -> None:
    """Give how the watches stand to the metrics, by deployment."""
    metrics.tell_watches(
        {deployment.id: leading([states[watched] for watched in watched_of(deployment) if watched in states]) for deployment in deployments}
    )


def shift_message(state: WatchState, rate: float, deployment: str, *, known: bool) -> deployment_pb2.ShiftStatus:
    """Write how a watch stands; `known`: the model's package says something of its training images."""
    status = deployment_pb2.ShiftStatus(window_size=state.window, alarm=state.alarm.on)
    if not known:
        status.message = words.NO_REFERENCE
        return status
    look = state.shown
    if look is None and not state.window:
        status.message = words.NOTHING_YET
        return status
    status.message = words.message(state, rate, deployment)
    if look is not None:
        status.p_value, status.effect_size, status.detectable_effect_size = look.p_value, look.effect, look.detectable
        status.test = words.test_words(state)
        status.update_time.FromDatetime(datetime.fromtimestamp(state.looked, UTC))
    if state.alarm.on:
        status.alarm_time.FromDatetime(datetime.fromtimestamp(state.alarm.since, UTC))
    return status
