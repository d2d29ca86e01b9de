"""The gateway's own metrics, beside those that every service has."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from prometheus_client import Counter, Gauge, Histogram

from oteo_core.packages import MetricValue
from oteo_gateway.prediction.predictor import Times
from oteo_gateway.watching.records import WatchState

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

_STAGE = Histogram(
    "oteo_predict_stage_seconds",
    "Time of a prediction by stage: queue (waiting for a place), decode (with resizing), inference (Triton, there and back), total.",
    ["model", "stage"],
    buckets=_SECONDS,
)
_SHIFT = Histogram(
    "oteo_predict_shift_p_value",
    "How usual images are for the model: the p-value of their distance from its training images, evenly spread where nothing has changed.",
    ["model"],
    buckets=(0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0),
)
_REFUSED = Counter("oteo_predict_refused_total", "Predictions that were not answered, by deployment and reason.", ["deployment", "reason"])
# The autoscaler looks for an increase, so this one begins at 0: see `expect`.
_REFUSED.labels("", "NO_REPLICA")
_WAITING = Gauge("oteo_predict_waiting", "Predictions that wait for a place.", multiprocess_mode="livesum")
_DEPLOYMENTS_WAITING = Gauge(
    "oteo_deployments_waiting",
    "Deployments whose creation or change waits until replicas serve it; every gateway shows all of them.",
    multiprocess_mode="livemax",
)
_SHADOW_AGREEMENT = Histogram(
    "oteo_shadow_agreement",
    "How far a shadow's answer for an image agreed with the one that was given, 0 to 1.",
    ["deployment", "model"],
    buckets=(0.0, 0.25, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0),
)
_SHADOW_RATIO = Histogram(
    "oteo_shadow_latency_ratio",
    "A shadow's time in the model server over the answering model's, by image.",
    ["deployment", "model"],
    buckets=(0.125, 0.25, 0.5, 0.71, 1.0, 1.41, 2.0, 4.0, 8.0),
)
_SHADOW_MISSED = Counter(
    "oteo_shadow_missed_total",
    "Copies that a shadow did not answer: BEHIND and AWAY were left out, other reasons are the errors' own.",
    ["deployment", "model", "reason"],
)
_SHADOW_WAITING = Gauge("oteo_shadow_waiting", "Copies of predictions that wait for shadows.", multiprocess_mode="livesum")

_SHIFT_P = Gauge(
    "oteo_shift_p_value",
    "P-value of the last look for shift, corrected for all tests of the look, by deployment.",
    ["deployment"],
    multiprocess_mode="livemostrecent",
)
_SHIFT_EFFECT = Gauge(
    "oteo_shift_effect_size",
    "Largest distance of distributions, 0 to 1, in the last look for shift.",
    ["deployment"],
    multiprocess_mode="livemostrecent",
)
_SHIFT_ALARM = Gauge("oteo_shift_alarm", "1 while the alarm of a shift rings.", ["deployment"], multiprocess_mode="livemostrecent")
_SHIFT_WINDOW = Gauge(
    "oteo_shift_window_images",
    "Different images in the window that is tested for shift.",
    ["deployment"],
    multiprocess_mode="livemostrecent",
)
_ACCURACY = Gauge(
    "oteo_live_accuracy",
    "Mean agreement with readers' corrections of the model that serves, 0 to 1, and its 95 % interval.",
    ["deployment", "model", "bound"],
    multiprocess_mode="livemostrecent",
)
_CORRECTIONS = Gauge(
    "oteo_live_corrections",
    "Images that readers judged, behind oteo_live_accuracy.",
    ["deployment", "model"],
    multiprocess_mode="livemostrecent",
)
_WATCHES = (_SHIFT_P, _SHIFT_EFFECT, _SHIFT_ALARM, _SHIFT_WINDOW)
_told_watches: set[str] = set()
_told_accuracies: set[tuple[str, str]] = set()


def tell_watches(found: Mapping[str, WatchState]) -> None:
    """Show how the watches of all deployments stand; those that are gone are shown no more."""
    for deployment in _told_watches - set(found):
        for gauge in _WATCHES:
            gauge.remove(deployment)
    for deployment, state in found.items():
        look = state.look
        figures = (look.p_value if look else 1.0, look.effect if look else 0.0, float(state.alarm.on), float(state.window))
        for gauge, value in zip(_WATCHES, figures, strict=True):
            gauge.labels(deployment).set(value)
    _told_watches.clear()
    _told_watches.update(found)


def tell_accuracies(found: Mapping[tuple[str, str], MetricValue]) -> None:
    """Show the accuracies in use, by deployment and model."""
    for gone in _told_accuracies - set(found):
        _CORRECTIONS.remove(*gone)
        for bound in ("mean", "lower", "upper"):
            _ACCURACY.remove(*gone, bound)
    for key, value in found.items():
        _CORRECTIONS.labels(*key).set(value.sample_count)
        for bound, figure in (("mean", value.value), ("lower", value.lower), ("upper", value.upper)):
            _ACCURACY.labels(*key, bound).set(value.value if figure is None else figure)
    _told_accuracies.clear()
    _told_accuracies.update(found)


def expect(deployment: str) -> None:
    """Have the count of those who find nobody serving a deployment begin at 0.

    Prometheus sees no increase in a count that is 1 when it first sees it, and the autoscaler that starts the first replica looks for one.
    """
    _REFUSED.labels(deployment, "DEPLOYMENT_NOT_READY")


def no_replica() -> None:
    """Count a call of the Open Inference Protocol that found no replica at all."""
    _REFUSED.labels("", "NO_REPLICA").inc()


def deployments_waiting(count: int) -> None:
    """Show how many deployments wait for replicas."""
    _DEPLOYMENTS_WAITING.set(count)


def waiting(count: int) -> None:
    """Show how many predictions wait."""
    _WAITING.set(count)


class PrometheusObserver:
    """Takes the figures of predictions for Prometheus."""

    def __init__(self) -> None:
        # Looked up once: that costs more than counting.
        self._stages: dict[str, tuple[Histogram, ...]] = {}
        self._shifts: dict[str, Histogram] = {}
        self._refused: dict[tuple[str, str], Counter] = {}

    def predicted(self, model: str, times: Times, shift: tuple[float, float] | None) -> None:
        """One was answered."""
        stages = self._stages.get(model)
        if stages is None:
            stages = self._stages[model] = tuple(_STAGE.labels(model, stage) for stage in ("queue", "decode", "inference", "total"))
            self._shifts[model] = _SHIFT.labels(model)
        if shift is not None:
            self._shifts[model].observe(shift[1])
        for stage, seconds in zip(stages, (times.queue, times.decode, times.inference, times.total), strict=True):
            stage.observe(seconds)

    def refused(self, deployment: str, reason: str) -> None:
        """One was not; `deployment` is empty where there is none of that name, which anybody could make up, or it was not read."""
        counter = self._refused.get((deployment, reason))
        if counter is None:
            counter = self._refused[deployment, reason] = _REFUSED.labels(deployment, reason)
        counter.inc()


class PrometheusShadowObserver:
    """Takes the figures of comparisons for Prometheus; see `oteo_gateway.prediction.shadowing.ShadowObserver`."""

    def __init__(self) -> None:
        self._waiting: Callable[[], int] = lambda: 0

    def compared(self, deployment: str, model: str, agreement: float, ratio: float) -> None:
        """A shadow answered."""
        _SHADOW_AGREEMENT.labels(deployment, model).observe(agreement)
        _SHADOW_RATIO.labels(deployment, model).observe(ratio)
        _SHADOW_WAITING.set(self._waiting())

    def missed(self, deployment: str, model: str, reason: str) -> None:
        """A shadow did not."""
        _SHADOW_MISSED.labels(deployment, model, reason).inc()
        _SHADOW_WAITING.set(self._waiting())

    def watch(self, waiting: Callable[[], int]) -> None:
        """Show how many copies wait, whenever one has been dealt with: a function's gauge is none where several processes share a page."""
        self._waiting = waiting
