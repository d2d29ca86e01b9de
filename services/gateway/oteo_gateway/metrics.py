"""The gateway's own metrics, beside those that every service has."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import Counter, Gauge, Histogram

from oteo_gateway.prediction.predictor import Times

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

_STAGE = Histogram(
    "oteo_predict_stage_seconds",
    "Time of a prediction by stage: queue (waiting for a place), decode (with resizing), inference (Triton, there and back), total.",
    ["model", "stage"],
    buckets=_SECONDS,
)
_REFUSED = Counter("oteo_predict_refused_total", "Predictions that were not answered, by deployment and reason.", ["deployment", "reason"])
_WAITING = Gauge("oteo_predict_waiting", "Predictions that wait for a place.")
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
_SHADOW_WAITING = Gauge("oteo_shadow_waiting", "Copies of predictions that wait for shadows.")


def expect(deployment: str) -> None:
    """Have the count of those who find nobody serving a deployment begin at 0.

    Prometheus sees no increase in a count that is 1 when it first sees it, and the autoscaler that starts the first replica looks for one.
    """
    _REFUSED.labels(deployment, "DEPLOYMENT_NOT_READY")


class PrometheusObserver:
    """Takes the figures of predictions for Prometheus.

    Parameters
    ----------
    waiting
        Gives the number of predictions that wait.
    """

    def __init__(self, waiting: Callable[[], int]) -> None:
        _WAITING.set_function(waiting)
        self._stages: dict[str, tuple[Histogram, ...]] = {}

    def predicted(self, model: str, times: Times) -> None:
        """One was answered."""
        stages = self._stages.get(model)
        if stages is None:
            stages = self._stages[model] = tuple(_STAGE.labels(model, stage) for stage in ("queue", "decode", "inference", "total"))
        for stage, seconds in zip(stages, (times.queue, times.decode, times.inference, times.total), strict=True):
            stage.observe(seconds)

    def refused(self, deployment: str, reason: str) -> None:
        """One was not; `deployment` is empty where there is none of that name, which anybody could make up."""
        _REFUSED.labels(deployment, reason).inc()


class PrometheusShadowObserver:
    """Takes the figures of comparisons for Prometheus; see `oteo_gateway.prediction.shadowing.ShadowObserver`."""

    def compared(self, deployment: str, model: str, agreement: float, ratio: float) -> None:
        """A shadow answered."""
        _SHADOW_AGREEMENT.labels(deployment, model).observe(agreement)
        _SHADOW_RATIO.labels(deployment, model).observe(ratio)

    def missed(self, deployment: str, model: str, reason: str) -> None:
        """A shadow did not."""
        _SHADOW_MISSED.labels(deployment, model, reason).inc()

    def watch(self, waiting: Callable[[], int]) -> None:
        """Show how many copies wait."""
        _SHADOW_WAITING.set_function(waiting)
