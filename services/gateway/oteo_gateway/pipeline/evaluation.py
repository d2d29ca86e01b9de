"""A model judged through its deployment: what the caller would have got, against what the samples say."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from oteo_protos.type.v1 import report_pb2

_CONFIDENCE = 0.95
_Z = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Judged:
    """One sample's truth and answer.

    Attributes
    ----------
    truth
        The sample's class.
    answer
        The likeliest class.
    prediction_set
        Classes of the conformal prediction set; empty where the model has none.
    """

    truth: str
    answer: str
    prediction_set: tuple[str, ...] = ()


def wilson(successes: int, trials: int, z: float = _Z) -> tuple[float, float]:
    """Give the score interval of a proportion.

    Source: Wilson (1927), "Probable inference, the law of succession, and statistical inference", equation 6; in the form of Brown,
    Cai and DasGupta (2001), section 3.1.1. It takes the samples to be independent: where several come from one patient it is too narrow,
    and the report of the training, which resamples groups, says more.

    Parameters
    ----------
    successes, trials
        Counts; at least one trial.
    z
        Quantile of the normal distribution; 1.96 for 95 %.

    Returns
    -------
    tuple
        Lower and upper end, 0 to 1.
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError(f"{successes} successes of {trials} trials")
    share = successes / trials
    denominator = 1 + z * z / trials
    centre = (share + z * z / (2 * trials)) / denominator
    half = z / denominator * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    return max(0.0, centre - half), min(1.0, centre + half)


def metrics(judged: Sequence[Judged], split: str = "test") -> list[report_pb2.Metric]:
    """Give accuracy, each class's recall and, where there are prediction sets, their coverage and the share that is referred.

    Empty where nothing was judged.
    """
    if not judged:
        return []
    found = [_share("accuracy", (case.answer == case.truth for case in judged), split)]
    counts = Counter(case.truth for case in judged)
    found += [
        _share("recall", (case.answer == name for case in judged if case.truth == name), split, class_name=name) for name in sorted(counts)
    ]
    if any(case.prediction_set for case in judged):
        found.append(_share("set_coverage", (case.truth in case.prediction_set for case in judged), split))
        found.append(_share("referral_rate", (len(case.prediction_set) != 1 for case in judged), split))
    return found


def _share(name: str, hits: Iterable[bool], split: str, class_name: str = "") -> report_pb2.Metric:
    values = list(hits)
    successes = sum(values)
    lower, upper = wilson(successes, len(values))
    return report_pb2.Metric(
        name=name,
        value=successes / len(values),
        lower=lower,
        upper=upper,
        confidence_level=_CONFIDENCE,
        split=split,
        class_name=class_name,
        sample_count=len(values),
    )
