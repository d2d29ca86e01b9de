"""The candidates by name."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from oteo_automl.candidates.network import PORTFOLIO
from oteo_core.errors import InvalidArgument

BASELINES = ("classical", "frozen_resnet18")


def names() -> tuple[str, ...]:
    """Give all names: baselines first, then networks."""
    return (*BASELINES, *PORTFOLIO)


def has_gpu() -> bool:
    """Say whether networks can be trained on a GPU here."""
    return torch.cuda.is_available()


def choose(asked: Sequence[str], gpu: bool) -> tuple[list[str], dict[str, str]]:
    """Choose what is tried.

    Returns
    -------
    chosen, reasons
        Names, baselines first, and for every name of the registry why it is in or out.

    Raises
    ------
    InvalidArgument
        UNKNOWN_CANDIDATE.
    """
    for name in asked:
        if name not in names():
            raise InvalidArgument(
                f"{name!r} is not a candidate; there are: {', '.join(names())}", reason="UNKNOWN_CANDIDATE", field="candidates"
            )
    chosen, reasons = [], {}
    for name in names():
        spec = PORTFOLIO.get(name)
        if asked and name not in asked and name != "classical":
            reasons[name] = "not asked for"
        elif spec is not None and spec.gpu_only and not gpu and name not in asked:
            reasons[name] = "too slow without a GPU"
        else:
            chosen.append(name)
            reasons[name] = "the cheap baseline: there is always an answer" if name in BASELINES else "in the portfolio for this machine"
    return chosen, reasons
