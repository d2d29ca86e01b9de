"""All candidates by name, and which of them are tried on a machine."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from oteo_automl.candidates.portfolio import DESCRIPTOR_SETS, FAMILIES, PORTFOLIO
from oteo_core.errors import InvalidArgument

BASELINE = "classical-logistic"
"""The first candidate of every search: seconds, and hardly ever bad."""

BLEND = "blend"
"""The mean of the best of several kinds; made at the end."""

FROZEN = "frozen-"
"""What features of a network with given weights begin with; its name follows."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """Something that can be tried.

    Parameters
    ----------
    name
        As users and reports call it.
    features
        For a classifier on fixed features: one of `oteo_automl.candidates.portfolio.DESCRIPTOR_SETS`, ``"patches"``, or `FROZEN` and a
        network's name; empty for a network that is trained.
    family
        For such: one of `oteo_automl.candidates.portfolio.FAMILIES`.
    architecture
        For a network: timm's name.
    """

    name: str
    features: str = ""
    family: str = ""
    architecture: str = ""


def _make() -> dict[str, Candidate]:
    sets = (*DESCRIPTOR_SETS, "patches", *(f"{FROZEN}{one.name}" for one in PORTFOLIO))
    found = [Candidate(f"{features}-{family}", features, family) for features in sets for family in FAMILIES]
    found += [Candidate(f"timm-{one.name}", architecture=one.name) for one in PORTFOLIO]
    return {one.name: one for one in found}


CANDIDATES: dict[str, Candidate] = _make()
"""Every candidate but the blend."""

_USUAL = (
    BASELINE,
    "classical-svm",
    "classical-boosting",
    "lab-trees",
    "patches-svm",
    "patches-boosting",
    "patches-logistic",
    *(f"{FROZEN}{one.name}-{family}" for one in PORTFOLIO for family in ("logistic", "svm")),
)
"""Measured on `brain_mri_yesno` and `wbc_zheng` (docs/benchmarks.md): the others are slower, or worse, or seldom add anything to a blend."""


def names() -> tuple[str, ...]:
    """Give all names that a request may ask for."""
    return (*CANDIDATES, BLEND)


def choose(
    asked: Sequence[str],
    *,
    gpu: bool,
    pretrained: bool,
    budget: float,
    smallest_side: int = 224,
    weights: Collection[str] | None = None,
) -> tuple[list[Candidate], dict[str, str]]:
    """Choose what is tried, in order.

    Parameters
    ----------
    asked
        Names asked for; a name without its last part (``"classical"``, ``"timm"``) stands for all that begin with it; empty: all that fit.
    gpu
        True where networks train on a GPU.
    pretrained
        True where pretrained weights are given.
    budget
        Seconds for everything.
    smallest_side
        Of the inputs, pixels.
    weights
        Networks whose weights were found where `pretrained` says; None: not looked for yet.

    Returns
    -------
    chosen, reasons
        Candidates, the baseline first, and for every name why it is in or out.

    Raises
    ------
    InvalidArgument
        ``UNKNOWN_CANDIDATE``.
    """
    check_names(asked)
    wanted = {known for name in asked for known in matching(name)}
    large = {one.name for one in PORTFOLIO if one.large}
    hungry = {one.name for one in PORTFOLIO if not one.scratch}
    chosen: list[Candidate] = []
    reasons: dict[str, str] = {}
    order = [*_USUAL, *(name for name in CANDIDATES if name not in _USUAL)]
    for name in order:
        one = CANDIDATES[name]
        reason = ""
        if name == BASELINE:
            reasons[name] = "the baseline: there is always an answer"
            chosen.append(one)
            continue
        if wanted:
            reason = "" if name in wanted else "not asked for"
        elif one.family and name not in _USUAL:
            reason = "only if asked for: seldom the best"
        elif one.architecture in large and not gpu:
            reason = "too slow without a GPU"
        elif one.architecture in hungry and not pretrained:
            reason = "learns badly from scratch on few images, and no pretrained weights were given"
        elif budget < 60 and one.name not in _USUAL[:3]:
            reason = "the budget is too short for it"
        if not reason and one.features.startswith(FROZEN):
            network = one.features.removeprefix(FROZEN)
            if not pretrained:
                reason = "no pretrained weights were given; patches learnt from the images take its place"
            elif weights is not None and network not in weights:
                reason = f"no weights of {network} were found where pretrained ones lie"
            elif not wanted and network in large and not gpu:
                reason = "too slow without a GPU"
        if not reason and one.features == "patches" and smallest_side < 32:
            reason = "the images are too small for patches"
        if reason:
            reasons[name] = reason
        else:
            chosen.append(one)
            reasons[name] = "asked for" if wanted else "in the portfolio for this machine and budget"
    return chosen, reasons


def check_names(asked: Sequence[str]) -> None:
    """Refuse names that no candidate has.

    Raises
    ------
    InvalidArgument
        ``UNKNOWN_CANDIDATE``.
    """
    for name in asked:
        if not matching(name):
            raise InvalidArgument(
                f"{name!r} is not a candidate; there are: {', '.join(names())}", reason="UNKNOWN_CANDIDATE", field="candidates"
            )


def matching(name: str) -> list[str]:
    """Give the candidates that a name stands for: itself, or all that begin with it and a hyphen."""
    return [known for known in names() if known == name or known.startswith(f"{name}-")]
