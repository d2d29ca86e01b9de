"""What pieces of a search leave among the checkpoints, whatever the task."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from oteo_automl.search.result import EpochRecord

if TYPE_CHECKING:
    from oteo_automl.candidates.training import Outcome, Recipe


@dataclass(slots=True)
class PieceResult:
    """What a piece gives back; the network itself lies among the checkpoints.

    Parameters
    ----------
    scores
        On the samples that candidates are compared on, by name; among them ``log_loss`` or ``loss``.
    seconds
        That the piece took.
    epochs
        Done in all; 0 for what is fitted at once.
    parameters
        Settled while fitting.
    initial_weights
        See `oteo_automl.search.result.FittedCandidate`.
    curve
        Learning curve so far.
    stopped
        True where the time was up first.
    message
        For people.
    """

    scores: dict[str, float]
    seconds: float
    epochs: int = 0
    parameters: dict[str, Any] = field(default_factory=dict)
    initial_weights: str = "scratch"
    curve: list[EpochRecord] = field(default_factory=list)
    stopped: bool = False
    message: str = ""

    def to_json(self) -> bytes:
        """Write it."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_json(cls, data: bytes) -> PieceResult:
        """Read what `to_json` wrote."""
        values = json.loads(data)
        values["curve"] = [EpochRecord(**record) for record in values["curve"]]
        return cls(**values)


def model_name(trial: str) -> str:
    """Give the checkpoint's name of a trial's newest model."""
    return f"trials/{trial}/model.pt"


def state_name(trial: str) -> str:
    """Give the checkpoint's name of a trial's training state."""
    return f"trials/{trial}/state.pt"


def result_name(trial: str, rung: int) -> str:
    """Give the checkpoint's name of a piece's result."""
    return f"trials/{trial}/result-{rung}.json"


def trained_result(outcome: Outcome, recipe: Recipe, initial_weights: str, seconds: float) -> PieceResult:
    """Say how a training piece went; its time is `seconds`."""
    return PieceResult(
        scores={**outcome.judgement.scores, "loss": outcome.judgement.loss},
        seconds=seconds,
        epochs=outcome.epochs,
        parameters={**asdict(recipe), "epochs": outcome.epochs},
        initial_weights=initial_weights,
        curve=outcome.curve,
        stopped=outcome.out_of_time,
        message=outcome.message,
    )
