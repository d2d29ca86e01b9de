"""``second.onnx``: the search's runner-up beside the model, whose opinion the translate service asks on images without labels."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from numpy.typing import NDArray

from oteo_automl.winner import Rival
from oteo_core.errors import Internal
from oteo_core.evaluation.bootstrap import Floats
from oteo_core.graphs.export import export_onnx
from oteo_core.graphs.outputs import Output, classification_outputs
from oteo_core.packages import ModelPackage
from oteo_core.packages.second import SECOND, note_second

LEAST_SHARE = 0.8
"""Of the model's own figure that the second network must have on the test part: one that has learnt little says little."""

_SECONDS = 5.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SecondNetwork:
    """Another network of the search.

    Parameters
    ----------
    trial
        Its trial's id.
    served, outputs
        As it would be served, and what it gives: the same as the model.
    figure, own
        The task's main figure on the test part, higher is better: its, and the model's.
    decoding
        How its outputs are read, as of `ModelPackage.decoding`.
    """

    trial: str
    served: torch.nn.Module
    outputs: Sequence[Output]
    figure: float
    own: float
    decoding: Mapping[str, Any] = field(default_factory=dict)

    @property
    def has_learnt(self) -> bool:
        """Whether its opinion is worth asking."""
        return self.figure >= LEAST_SHARE * self.own


def second_among(rivals: Sequence[Rival], classes: int, own: Floats, figure: Callable[[Floats], float]) -> SecondNetwork | None:
    """Give the first of a classifier's rivals that has learnt; `figure` judges probabilities ``(N, K)`` on the test part, and `own` are the model's."""
    outputs = classification_outputs(classes)
    found = (
        SecondNetwork(one.trial_id, one.served, outputs, figure(one.probabilities), figure(own)) for one in rivals if one.served is not None
    )
    return next((one for one in found if one.has_learnt), None)


def second_files(package: ModelPackage, second: SecondNetwork | None, images: NDArray[Any], seconds: float) -> dict[str, bytes]:
    """Give the file by which a package keeps a second network, and note in the package what it is.

    Parameters
    ----------
    package
        Complete in its input and its trials.
    second
        None: the search has no other.
    images
        Prepared images ``(N, H, W, C)`` that the graph is compared on.
    seconds
        What it may take: it is a help to others and no part of what is served, so that where time is short it is left out.

    Returns
    -------
    dict
        Contents by name; empty where it is left out.
    """
    if second is None or not second.has_learnt or seconds < _SECONDS:
        return {}
    try:
        graph = export_onnx(second.served, package.input, second.outputs, images).data
    except Internal as error:
        _log.warning("%s is left out: %s", SECOND, error)
        return {}
    candidate = next((trial.candidate for trial in package.trials if trial.id == second.trial), "")
    note_second(package, candidate, second.trial, second.decoding)
    return {SECOND: graph}
