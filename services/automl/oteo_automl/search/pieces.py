"""What pieces of a search leave among the checkpoints, whatever the task."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from oteo_automl.search.checkpoints import Checkpoints
from oteo_automl.search.extrapolation import hopeless
from oteo_automl.search.result import EpochRecord

if TYPE_CHECKING:
    from oteo_automl.candidates.training import Outcome, Recipe

FOLDS_OF = "folds_of"
"""Parameter of a trial that stands for a network trained on all folds: the trial that has held out the first."""

_RIVALS = "rivals.json"
_LOOK_SECONDS = 2.0


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
    hopeless
        Why it was stopped early, by its learning curve; empty where it was not.
    collapsed
        True where every answer is the same though the truths are not.
    latency
        Seconds for one image at inference on this machine; 0 where it was not measured.
    fold_scores
        Accuracy on each fold by the model that was not fitted on it, by the fold's number, where the candidate was cross-validated.
    """

    scores: dict[str, float]
    seconds: float
    epochs: int = 0
    parameters: dict[str, Any] = field(default_factory=dict)
    initial_weights: str = "scratch"
    curve: list[EpochRecord] = field(default_factory=list)
    stopped: bool = False
    message: str = ""
    hopeless: str = ""
    collapsed: bool = False
    latency: float = 0.0
    fold_scores: dict[str, float] = field(default_factory=dict)

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


def trained_result(outcome: Outcome, recipe: Recipe, initial_weights: str, seconds: float, latency: float = 0.0) -> PieceResult:
    """Say how a training piece went; its time is `seconds`, that of one image at inference `latency`."""
    return PieceResult(
        scores={**outcome.judgement.scores, "loss": outcome.judgement.loss},
        seconds=seconds,
        epochs=outcome.epochs,
        parameters={**asdict(recipe), "epochs": outcome.epochs, "steps": outcome.steps},
        initial_weights=initial_weights,
        curve=outcome.curve,
        stopped=outcome.out_of_time,
        message=outcome.message,
        hopeless=outcome.hopeless,
        collapsed=outcome.judgement.collapsed,
        latency=latency,
    )


def fold_name(parent: str, fold: int, *, again: bool = False) -> str:
    """Give the name under which the training of a fold leaves what it has done; `again`: one that was begun again with a safer setting."""
    return f"{parent}/fold{fold}{'-again' if again else ''}"


def save_rivals(checkpoints: Checkpoints, curves: Mapping[str, Sequence[EpochRecord]]) -> None:
    """Write down the curves, by trial, that others have to beat."""
    checkpoints.save(_RIVALS, json.dumps({trial: [asdict(one) for one in curve] for trial, curve in curves.items()}).encode())


def curve_watch(checkpoints: Checkpoints, trial: str, horizon: int, *, by_score: bool) -> Callable[[list[EpochRecord]], str]:
    """Give what `Trainer.run` shows its curve to: it says so where a trial cannot win any more.

    Parameters
    ----------
    checkpoints
        Where `save_rivals` wrote.
    trial, horizon
        Its id, and the epochs planned.
    by_score
        See `oteo_automl.search.extrapolation.hopeless`.
    """
    looked = 0.0

    def watch(curve: list[EpochRecord]) -> str:
        nonlocal looked
        # Not at every epoch of a small set: looking costs a file.
        if time.monotonic() - looked < _LOOK_SECONDS:
            return ""
        looked = time.monotonic()
        stored = checkpoints.load(_RIVALS)
        if stored is None:
            return ""
        others = [[EpochRecord(**one) for one in records] for name, records in json.loads(stored).items() if name != trial]
        return hopeless(curve, horizon, others, by_score=by_score)

    return watch
