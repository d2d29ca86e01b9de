"""The front of loss and time at inference, over a search's trials, and who is picked from it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from oteo_automl.search.ensemble import front, price
from oteo_automl.search.trial import Trial


def mark_front(trials: Sequence[Trial], objective: str) -> None:
    """Note which trials are on the front: no other is at least as good and as quick, and better in one."""
    judged = [trial for trial in trials if trial.results]
    marks = front([(trial.loss(objective), trial.results[-1].latency or math.inf) for trial in judged])
    for trial, mark in zip(judged, marks, strict=True):
        trial.on_front = mark


def pick(trials: Sequence[Trial], objective: str, limit: float) -> Trial | None:
    """Give the trial of the lowest `price` within the time that one image may take, the quickest where none is; None without any."""
    judged = [trial for trial in trials if trial.results]
    if not judged:
        return None
    within = [trial for trial in judged if trial.results[-1].latency <= limit]
    if not within:
        return min(judged, key=lambda trial: (trial.results[-1].latency, trial.loss(objective)))
    fastest = min(trial.results[-1].latency for trial in within)
    return min(within, key=lambda trial: price(trial.loss(objective), trial.results[-1].latency, fastest))


def why_chosen(candidate: str, latency: float, limit: float) -> str:
    """Say what was chosen, and at what time for one image."""
    words = f"Chosen: {candidate}, {1000 * latency:.3g} ms for one image on this machine."
    if latency > limit:
        words += f" No model keeps the {1000 * limit:.3g} ms that were asked for: this is the quickest."
    return words
