"""Predictions that there is no room for are refused before their images are read."""

from __future__ import annotations

from oteo_core.errors import ResourceExhausted
from oteo_gateway.prediction.admission import Admission
from oteo_gateway.prediction.predictor import Observer

PREDICT = "/oteo.gateway.v1.InferenceService/Predict"


class PredictionCrowd:
    """Checks calls of ``Predict``; see `oteo_core.access.Crowd`. A stream's images are each answered or refused in the stream.

    Parameters
    ----------
    admission
        The places and the queue of all predictions.
    observer
        Told of what is refused.
    """

    def __init__(self, admission: Admission, observer: Observer) -> None:
        self._admission = admission
        self._observer = observer

    def waits(self, method: str) -> bool:
        """Say whether predictions wait."""
        return method == PREDICT and self._admission.waiting > 0

    def check(self, method: str, caller: str, remaining: float | None) -> None:
        """Refuse what the queue has no room for, or cannot bring forward in time.

        Raises
        ------
        ResourceExhausted
            As `Admission.enter`.
        """
        try:
            self._admission.check(caller, remaining)
        except ResourceExhausted as refused:
            # Which deployment is asked for stands in the message.
            self._observer.refused("", refused.reason)
            raise
