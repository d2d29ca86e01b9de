"""What every candidate's task gives back, and how a held-out answer is scored."""

from __future__ import annotations

import io
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import balanced_accuracy_score, f1_score, roc_auc_score

from oteo_automl.evaluation.calibration import fit_temperature, softmax
from oteo_automl.search.result import EpochRecord


@dataclass(slots=True)
class Fitted:
    """What a task hands back: everything but the live network, which travels as bytes.

    Attributes
    ----------
    module
        The network, as `pack_module` wrote it.
    places, logits
        Held-out places in the data and their logits ``(M, K)``.
    scores
        Metrics on the validation part: name to value.
    parameters
        What was settled while fitting, such as the classifier chosen.
    curve
        Epochs of this run of the task.
    seconds
        Time of this run.
    calibrated_on
        The held-out places in words.
    initial_weights
        See `FittedCandidate`.
    state
        What a later rung goes on from, as bytes; empty where there is none.
    stopped
        True where the time was up before the plan was done.
    message
        What a reader should know: why it stopped, what was repaired.
    """

    module: bytes
    places: NDArray[np.int64]
    logits: NDArray[np.float32]
    scores: dict[str, float]
    parameters: dict[str, Any] = field(default_factory=dict)
    curve: list[EpochRecord] = field(default_factory=list)
    seconds: float = 0.0
    calibrated_on: str = "the validation part"
    initial_weights: str = "none"
    state: bytes = b""
    stopped: bool = False
    message: str = ""

    def to_bytes(self) -> bytes:
        """Give everything as bytes, for a checkpoint."""
        buffer = io.BytesIO()
        content = asdict(self)
        content["places"], content["logits"] = torch.from_numpy(self.places), torch.from_numpy(self.logits)
        torch.save(content, buffer)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Fitted:
        """Read what `to_bytes` gave; nothing but plain values and tensors is accepted."""
        content = torch.load(io.BytesIO(data), weights_only=True)
        content["places"], content["logits"] = content["places"].numpy(), content["logits"].numpy()
        content["curve"] = [EpochRecord(**epoch) for epoch in content["curve"]]
        return cls(**content)


def pack_module(module: torch.nn.Module) -> bytes:
    """Give a network as bytes; they are read again only by Oteo's own job, from its own folder."""
    buffer = io.BytesIO()
    torch.save(module.cpu().eval(), buffer)
    return buffer.getvalue()


def unpack_module(data: bytes) -> torch.nn.Module:
    """Read what `pack_module` gave."""
    module: torch.nn.Module = torch.load(io.BytesIO(data), weights_only=False)
    return module.eval()


def score(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> dict[str, float]:
    """Score held-out answers: log-loss after temperature scaling, accuracy, balanced accuracy, macro F1 and AUROC (where every class is present)."""
    probabilities = softmax(logits, fit_temperature(logits, labels).temperature)
    true = np.clip(probabilities[np.arange(len(labels)), labels], 1e-7, 1.0)
    predicted = probabilities.argmax(axis=1)
    scores = {
        "log_loss": float(-np.log(true).mean()),
        "accuracy": float((predicted == labels).mean()),
        "balanced_accuracy": float(balanced_accuracy_score(labels, predicted)),
        "f1": float(f1_score(labels, predicted, average="macro", zero_division=0)),
    }
    if len(np.unique(labels)) == logits.shape[1]:
        scores["auroc"] = float(
            roc_auc_score(labels, probabilities[:, 1])
            if logits.shape[1] == 2
            else roc_auc_score(labels, probabilities / probabilities.sum(1, keepdims=True), multi_class="ovr", average="macro")
        )
    return scores


def better(objective: str, first: float, second: float) -> bool:
    """Say whether the first value of an objective is better than the second."""
    return first < second if objective == "log_loss" else first > second
