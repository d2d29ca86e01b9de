"""One trial and what is known of it, as it is written down while a search runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from oteo_automl.candidates.training import Recipe
from oteo_automl.search.pieces import PieceResult
from oteo_automl.search.result import EpochRecord
from oteo_automl.search.scoring import objective_loss
from oteo_core.packages import MetricValue, TrialRecord

WAITING, RUNNING, PAUSED, FINISHED, PRUNED, FAILED, STOPPED = "waiting", "running", "paused", "finished", "pruned", "failed", "stopped"


@dataclass(slots=True)
class Trial:
    """A trial.

    Parameters
    ----------
    id
        Last part of its name.
    candidate
        Name of the candidate.
    recipe
        Of a network; None for classifiers on features.
    rungs
        Epochs at which the trial is compared with others, the last one its whole plan; empty for classifiers.
    rung
        Place in `rungs` of what runs or ran last; -1 before anything did.
    state
        ``waiting``, ``running``, ``paused`` (between rungs), ``finished``, ``pruned``, ``failed`` or ``stopped``.
    results
        One for each rung that ended.
    seconds
        Of all its pieces.
    message
        For people.
    run_id
        In MLflow.
    restarts
        How often it was begun again with a safer setting.
    lost
        How often the process of a piece of it died.
    notes
        What happened on the way, sentences for people.
    on_front
        True where no other trial is both better and quicker at inference; known at the end.
    parent, fold
        Of the training of a network on another fold than the first: the trial that has held out the first, and the fold's number.
    """

    id: str
    candidate: str
    recipe: Recipe | None = None
    rungs: list[int] = field(default_factory=list)
    rung: int = -1
    state: str = WAITING
    results: list[PieceResult] = field(default_factory=list)
    seconds: float = 0.0
    message: str = ""
    run_id: str = ""
    restarts: int = 0
    lost: int = 0
    notes: list[str] = field(default_factory=list)
    on_front: bool = False
    parent: str = ""
    fold: int = 0

    @property
    def last(self) -> PieceResult | None:
        """The newest result."""
        return self.results[-1] if self.results else None

    @property
    def curve(self) -> list[EpochRecord]:
        """The learning curve so far."""
        return self.results[-1].curve if self.results else []

    def loss(self, objective: str, rung: int | None = None) -> float:
        """Give the objective such that smaller is better, after a rung or the last one; infinite where there is none."""
        if not self.results or (rung is not None and rung >= len(self.results)):
            return float("inf")
        return objective_loss(self.results[-1 if rung is None else rung].scores, objective)

    def to_dict(self) -> dict[str, Any]:
        """Give JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Trial:
        """Read what `to_dict` gave."""
        fields = dict(values)
        fields["recipe"] = Recipe(**fields["recipe"]) if fields["recipe"] else None
        fields["results"] = [
            PieceResult(**{**result, "curve": [EpochRecord(**record) for record in result["curve"]]}) for result in fields["results"]
        ]
        return cls(**fields)

    def record(self, objective: str, held_out: int) -> TrialRecord:
        """Give the trial as it goes into packages and lists; `held_out` is the number of samples behind its figures."""
        scores = self.results[-1].scores if self.results else {}
        parameters = dict(self.results[-1].parameters) if self.results else (asdict(self.recipe) if self.recipe else {})
        if self.results:
            parameters["initial_weights"] = self.results[-1].initial_weights
        states = {WAITING: RUNNING, PAUSED: RUNNING}
        return TrialRecord(
            id=self.id,
            candidate=self.candidate,
            parameters=parameters,
            state=states.get(self.state, self.state),
            metrics=[MetricValue(name, value, split="validation", sample_count=held_out) for name, value in scores.items()],
            objective=scores.get(objective, scores.get("log_loss", scores.get("loss"))),
            duration=self.seconds,
            run_id=self.run_id,
            message="; ".join(dict.fromkeys([*self.notes, *([self.message] if self.message else [])])),
            latency=self.results[-1].latency if self.results else 0.0,
            on_front=self.on_front,
        )
