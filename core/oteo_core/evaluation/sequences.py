"""Stacks and clips: one answer for the whole from those of its slices or frames.

A model answers frame by frame. Where a label is of the whole stack or clip, as it mostly is (all frames have it), what counts is the answer for the
whole: the mean of the frames' log-odds, which is their geometric mean. It weighs sure frames more than unsure ones and, unlike a vote, keeps
a probability. Frames of one sequence are not independent evidence: a product (a sum of log-odds) would be far too sure of itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from oteo_core.evaluation.bootstrap import Floats, Ints
from oteo_core.evaluation.classification import evaluate
from oteo_core.evaluation.multilabel import evaluate_multilabel
from oteo_core.packages import MetricValue

PREFIX = "sequence_"
"""What names of figures of whole sequences begin with."""

_TINY = 1e-7


@dataclass(frozen=True, slots=True)
class Wholes:
    """Whole sequences.

    Parameters
    ----------
    labels
        ``(S,)``, or ``(S, K)`` of 0 and 1.
    probabilities
        ``(S, K)``.
    groups, names
        Group and name of each.
    """

    labels: Ints
    probabilities: Floats
    groups: list[str]
    names: list[str]


def sequence_metrics(
    labels: Ints,
    probabilities: Floats,
    classes: Sequence[str],
    sequences: Sequence[str],
    groups: Sequence[str],
    *,
    thresholds: Sequence[float] | None = None,
    seed: int = 0,
) -> list[MetricValue]:
    """Measure the answers for whole stacks and clips on the test part; arguments as in `gather_sequences`.

    Returns
    -------
    list of MetricValue
        `PREFIX` and the name of each figure of the whole (``sequence_accuracy``), with intervals by group; empty where there is no sequence. The
        figures of single frames are given beside them, never instead.
    """
    found = gather_sequences(labels, probabilities, sequences, groups) if len(sequences) else None
    if found is None:
        return []
    if labels.ndim == 2:
        measured = evaluate_multilabel(
            found.labels, found.probabilities, classes, thresholds=thresholds, groups=found.groups, split="test", seed=seed
        )
    else:
        measured = evaluate(found.labels, found.probabilities, classes, groups=found.groups, split="test", seed=seed)
    return [replace(metric, name=f"{PREFIX}{metric.name}") for metric in measured if not metric.class_name]


def sequence_notes(metrics: Sequence[MetricValue]) -> list[str]:
    """Say how whole stacks and clips fare beside single frames; no sentence where there is none."""
    plain = {metric.name: metric for metric in metrics if not metric.class_name and metric.split == "test"}
    parts = []
    for name, word in (("accuracy", "accuracy"), ("mean_average_precision", "mean average precision"), ("auroc", "AUROC")):
        whole, frames = plain.get(PREFIX + name), plain.get(name)
        if whole is not None and frames is not None:
            span = "" if whole.lower is None or whole.upper is None else f" ({whole.lower:.3f} to {whole.upper:.3f})"
            parts.append(f"{word} {whole.value:.3f}{span} against {frames.value:.3f} frame by frame")
    if not parts:
        return []
    count = plain[next(name for name in plain if name.startswith(PREFIX))].sample_count
    return [f"Whole stacks and clips, answered by the mean of their frames' log-odds ({count} of them): {'; '.join(parts)}."]


def gather_sequences(labels: Ints, probabilities: Floats, sequences: Sequence[str], groups: Sequence[str]) -> Wholes | None:
    """Bring the answers of frames together.

    Parameters
    ----------
    labels
        Of the frames: ``(N,)``, or ``(N, K)`` of 0 and 1.
    probabilities
        ``(N, K)``.
    sequences
        Name of each frame's stack or clip; empty for a still image, which is a whole by itself.
    groups
        Group of each.

    Returns
    -------
    Wholes or None
        None where there is no sequence of two frames or more, or where frames of one differ in their labels: they are then of the frames (in which
        phase is the heart?), and a whole has none.
    """
    places: dict[str, list[int]] = {}
    for index, name in enumerate(sequences):
        places.setdefault(name or f"\0{index}", []).append(index)
    if all(len(found) < 2 for found in places.values()):
        return None
    if any((labels[found] != labels[found[0]]).any() for found in places.values()):
        return None
    several = labels.ndim == 2
    whole = []
    for found in places.values():
        clipped = np.clip(probabilities[found], _TINY, 1.0 - _TINY)
        if several:
            odds = (np.log(clipped) - np.log1p(-clipped)).mean(axis=0)
            whole.append(1.0 / (1.0 + np.exp(-odds)))
        else:
            mean = np.log(clipped).mean(axis=0)
            mean = np.exp(mean - mean.max())
            whole.append(mean / mean.sum())
    firsts = [found[0] for found in places.values()]
    return Wholes(
        labels=labels[firsts],
        probabilities=np.stack(whole),
        groups=[groups[first] for first in firsts],
        names=[sequences[first] for first in firsts],
    )
