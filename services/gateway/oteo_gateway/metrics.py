"""The gateway's own metrics, beside those that every service has."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

from oteo_gateway.prediction.predictor import Times

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
_WAITING = Gauge("oteo_predict_waiting", "Predictions that wait for a place.", multiprocess_mode="livesum")


def expect(deployment: str) -> None:
    """Have the count of those who find nobody serving a deployment begin at 0.

    Prometheus sees no increase in a count that is 1 when it first sees it, and the autoscaler that starts the first replica looks for one.
    """
    _REFUSED.labels(deployment, "DEPLOYMENT_NOT_READY")


def waiting(count: int) -> None:
    """Show how many predictions wait."""
    _WAITING.set(count)


class PrometheusObserver:
    """Takes the figures of predictions for Prometheus."""

    def __init__(self) -> None:
        self._stages: dict[str, tuple[Histogram, ...]] = {}

    def predicted(self, model: str, times: Times, shift: tuple[float, float] | None) -> None:
        """One was answered."""
        if shift is not None:
            _SHIFT.labels(model).observe(shift[1])
        stages = self._stages.get(model)
        if stages is None:
            stages = self._stages[model] = tuple(_STAGE.labels(model, stage) for stage in ("queue", "decode", "inference", "total"))
        for stage, seconds in zip(stages, (times.queue, times.decode, times.inference, times.total), strict=True):
            stage.observe(seconds)

    def refused(self, deployment: str, reason: str) -> None:
        """One was not; `deployment` is empty where there is none of that name, which anybody could make up."""
        _REFUSED.labels(deployment, reason).inc()
