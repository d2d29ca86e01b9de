"""BBSE: where classes are as they were but come in other shares, answers are weighed anew.

Lipton, Wang and Smola, "Detecting and correcting for label shift with black box predictors", ICML 2018: the shares of what a frozen model says on shifted images
and its confusion matrix at home give the true shares, by one linear system. Probabilities are then multiplied by each class's weight (shifted share over
home share) and made to sum to 1 again (Saerens, Latinne and Decaestecker 2002), inside the graph.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from oteo_core.errors import FailedPrecondition
from oteo_core.graphs.programs import write_program
from oteo_translate.adaptation.base import (
    HOME_LABELS,
    NETWORK,
    Adaptation,
    AdaptedModel,
    adaptation,
    publishable,
)
from oteo_translate.domains import Domain
from oteo_translate.methods.base import FitContext
from oteo_translate.tasks.model import TaskModel
from oteo_translate.tasks.network import FrozenNetwork

Floats = NDArray[np.float64]

LEAST_SINGULAR = 0.05
"""Smallest singular value of the confusion matrix (of shares) from which the system is trusted, times the number of classes; below it a small error of
the shares becomes a large one of the weights."""

LEAST_OF_A_CLASS = 5
"""Home images that each class needs."""

_LEAST_WEIGHT = 1e-3


@dataclass(frozen=True, slots=True)
class LabelShift:
    """What `estimate` finds: shares of the classes at home and in the shifted domain, ``(K,)`` each, and the smallest singular value of the system."""

    home: Floats
    shifted: Floats
    singular: float

    @property
    def weights(self) -> Floats:
        """Shifted share over home share, ``(K,)``."""
        return self.shifted / self.home


def estimate(labels: NDArray[np.int64], home: Floats, shifted: Floats) -> LabelShift:
    """Find the shares of the classes among shifted images.

    Parameters
    ----------
    labels
        True classes of home images, ``(N,)``.
    home, shifted
        Probabilities, ``(N, K)`` and ``(M, K)``. Their means are used in the place of counts of the first class ("soft" form of section 4): less noise.

    Raises
    ------
    FailedPrecondition
        ``NOT_ADAPTABLE``: a class has too few home images, or the model confuses classes so much that the shares cannot be told.
    """
    classes = home.shape[1]
    counts = np.bincount(labels, minlength=classes)
    if counts.min() < LEAST_OF_A_CLASS:
        raise FailedPrecondition(
            f"bbse needs {LEAST_OF_A_CLASS} home images of each class; of one there are {counts.min()}", reason="NOT_ADAPTABLE"
        )
    shares = counts / counts.sum()
    joint = np.stack([(home * (labels == one)[:, None]).sum(axis=0) for one in range(classes)], axis=1) / len(labels)
    singular = float(np.linalg.svd(joint, compute_uv=False).min())
    if singular * classes < LEAST_SINGULAR:
        raise FailedPrecondition(
            f"the model's answers tell the classes too poorly apart at home (smallest singular value {singular:.2g}) to say their shares elsewhere",
            reason="NOT_ADAPTABLE",
        )
    weights = np.clip(np.linalg.solve(joint, shifted.mean(axis=0)), 0.0, None)
    found = weights * shares
    found = np.maximum(found / found.sum(), _LEAST_WEIGHT * shares)
    return LabelShift(shares, found / found.sum(), singular)


class Reweighed(torch.nn.Module):
    """A classifier whose probabilities are multiplied by weights and made to sum to 1; logits are moved alike."""

    weights: torch.Tensor

    def __init__(self, served: torch.nn.Module, weights: Floats, outputs: tuple[str, ...]) -> None:
        super().__init__()
        self.served, self._outputs = served, outputs
        self.register_buffer("weights", torch.tensor(weights, dtype=torch.float32))

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Give the outputs of the classifier, weighed."""
        found = dict(zip(self._outputs, self.served(image), strict=True))
        weighed = found["probabilities"] * self.weights
        found["probabilities"] = weighed / weighed.sum(dim=1, keepdim=True)
        if "logits" in found:
            found["logits"] = found["logits"] + torch.log(self.weights)
        return tuple(found.values())


@adaptation
class Bbse(Adaptation):
    """See the module's docstring."""

    name = "bbse"
    summary = "Answers are weighed by the shares in which classes come now, told from the model's confusions at home (Lipton et al. 2018)."
    least = 20
    needs: ClassVar[tuple[str, ...]] = (NETWORK, HOME_LABELS)
    tasks: ClassVar[tuple[str, ...] | None] = ("classification",)
    cost = 4.0

    def adapt(self, model: TaskModel, shifted: Domain, home: Domain, parameters: Mapping[str, Any], context: FitContext) -> AdaptedModel:
        """Adapt; no parameters."""
        network = self.check(model, shifted, home)
        self.settings(parameters)
        rows = np.array([row for row, truth in enumerate(home.truths) if truth is not None], dtype=np.int64)
        labels = np.array([int(home.truths[row]) for row in rows], dtype=np.int64)
        known = np.stack(model.answers(home.images[rows]))
        context.check()
        found = estimate(labels, known, np.stack(model.answers(shifted.images)))
        # As probabilities they are 1 on average, so that what is weighed stays of usual size.
        reweighed = Reweighed(network.served(), found.weights, network.outputs).eval()
        adapted = FrozenNetwork.from_bytes(write_program(reweighed, network.policy, network.outputs), network.policy)
        details = {
            "home_shares": dict(zip(model.package.classes, found.home.round(4).tolist(), strict=True)),
            "shifted_shares": dict(zip(model.package.classes, found.shifted.round(4).tolist(), strict=True)),
            "singular": found.singular,
        }
        return publishable(model, adapted, shifted, details)
