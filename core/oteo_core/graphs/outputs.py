"""What a package's graph gives: names, shapes, types, and how nearly two runtimes must agree."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

TOLERANCE = 1e-4
"""Largest difference of a probability that counts as the same."""

DTYPES: dict[str, type[np.generic]] = {"FP32": np.float32, "INT64": np.int64, "UINT8": np.uint8}
"""Of outputs, by Triton's name."""


@dataclass(frozen=True, slots=True)
class Output:
    """One output of a graph.

    Parameters
    ----------
    name
        In the graph and on Triton.
    shape
        Without the batch; fixed.
    datatype
        Of `DTYPES`.
    tolerance
        Largest difference between two runtimes that counts as the same.
    spare
        Share of its numbers that may differ by more: where a decision between near equals falls the other way, as at the border of a class.
    labelled
        True where it has a number for each class, for Triton's classification extension.
    ranked_by
        For ``(M, ...)``: name of the output ``(M,)`` of falling scores that orders the rows. Rows whose score is nearly that of a neighbour may
        change places between runtimes, and are not compared; a few may be there for one runtime alone, as a cell that is as high as its neighbour is a
        peak or none, and those behind it stand a rank lower.
    """

    name: str
    shape: tuple[int, ...]
    datatype: str = "FP32"
    tolerance: float = TOLERANCE
    spare: float = 0.0
    labelled: bool = False
    ranked_by: str = ""


def classification_outputs(classes: int, maps: tuple[int, int] | None = None) -> tuple[Output, ...]:
    """Give the outputs of a classifier of K classes; `maps` is the height and width of its attention maps, None where it has none."""
    # Logits of a sure network are large: what counts of them is how they compare, which the probabilities show.
    usual = (Output("probabilities", (classes,), labelled=True), Output("logits", (classes,), tolerance=1e-2))
    if maps is None:
        return usual
    # The map is of the first class: between two that are equally probable it may be of either.
    return (*usual, Output("attention", maps, tolerance=1e-2, spare=0.1))


def difference(output: Output, found: NDArray[Any], expected: NDArray[Any]) -> float:
    """Give the bound that all but the spare share of the differences keep; infinite where shapes differ or numbers are not finite."""
    if found.shape != expected.shape:
        return float("inf")
    if not found.size:
        return 0.0
    wide_found, wide_expected = found.astype(np.float64), expected.astype(np.float64)
    if not np.isfinite(wide_found).all():
        return float("inf")
    differences = np.abs(wide_found - wide_expected).ravel()
    if output.spare <= 0:
        return float(differences.max())
    place = min(len(differences) - 1, int(np.ceil(len(differences) * (1.0 - output.spare))) - 1)
    return float(np.partition(differences, place)[place])


def compare_outputs(outputs: Sequence[Output], found: Sequence[NDArray[Any]], expected: Sequence[NDArray[Any]]) -> tuple[float, str]:
    """Compare all outputs.

    Returns
    -------
    error, complaint
        Difference of the first output, and a sentence on the first output that differs by more than it may; empty where none does.
    """
    first, complaint = 0.0, ""
    names = [output.name for output in outputs]
    ranks = {name: _Ranks(found[names.index(name)], expected[names.index(name)]) for name in {one.ranked_by for one in outputs} - {""}}
    for place, (output, one, other) in enumerate(zip(outputs, found, expected, strict=True)):
        if output.name in ranks:
            value = difference(output, *ranks[output.name].alike(one, other))
        elif output.ranked_by and one.shape == other.shape:
            value = difference(output, *ranks[output.ranked_by].clear(one, other))
        else:
            value = difference(output, one, other)
        if place == 0:
            first = value
        if not value <= output.tolerance and not complaint:
            if one.shape != other.shape:
                complaint = f"{output.name} has shape {one.shape} where {other.shape} is due"
            elif np.isinf(value):
                complaint = f"{output.name} holds numbers that are not finite"
            else:
                complaint = f"{output.name} differs by {value:.3g}, more than {output.tolerance:g}"
    return first, complaint


_FEW_RANKS = 0.02
"""Share of the ranks that may be there for one runtime alone."""


class _Ranks:
    """Which rows of two ranked lists ``(N, M)`` of falling scores are the same."""

    def __init__(self, found: NDArray[Any], expected: NDArray[Any]) -> None:
        self._pairs: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]] | None = None
        self._clear_expected = _clear_ranks(expected)
        if found.shape != expected.shape or not np.isfinite(found).all():
            return
        self._clear_found = _clear_ranks(found)
        pairs = [(image, *pair) for image in range(len(found)) for pair in _pairs(found[image].tolist(), expected[image].tolist())]
        if pairs and expected.size - len(pairs) <= _FEW_RANKS * expected.size:
            images, ours, theirs = np.array(pairs, dtype=np.int64).T
            self._pairs = images, ours, theirs

    def alike(self, found: NDArray[Any], expected: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Give the scores rank by rank, or of those that have a partner where all but a few have one."""
        if self._pairs is None:
            return found, expected
        images, ours, theirs = self._pairs
        return found[images, ours], expected[images, theirs]

    def clear(self, found: NDArray[Any], expected: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Give the rows, of arrays ``(N, M, ...)``, that are told from both neighbours in either list."""
        if self._pairs is None:
            return found[self._clear_expected], expected[self._clear_expected]
        images, ours, theirs = self._pairs
        clear = self._clear_found[images, ours] & self._clear_expected[images, theirs]
        return found[images[clear], ours[clear]], expected[images[clear], theirs[clear]]


def _pairs(found: Sequence[float], expected: Sequence[float]) -> Iterator[tuple[int, int]]:
    """Give the places of what is the same in two falling lists."""
    ours = theirs = 0
    while ours < len(found) and theirs < len(expected):
        if abs(found[ours] - expected[theirs]) <= 2 * TOLERANCE:
            yield ours, theirs
            ours, theirs = ours + 1, theirs + 1
        elif found[ours] > expected[theirs]:
            ours += 1
        else:
            theirs += 1


def _clear_ranks(scores: NDArray[Any]) -> NDArray[np.bool_]:
    """Say for falling scores ``(N, M)`` which are told from both neighbours by more than rounding can move them."""
    gaps = -np.diff(scores.astype(np.float64), axis=1, append=0.0) > 2 * TOLERANCE
    return np.asarray(gaps & np.concatenate([np.ones((len(scores), 1), bool), gaps[:, :-1]], axis=1))
