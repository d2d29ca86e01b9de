"""How a model fares when images change as they do between scanners, stains and file treatments."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ShiftResult:
    """The figure under one simulated shift.

    Parameters
    ----------
    name
        Of the shift: ``"blur"``.
    strength
        1 (mild) or 2 (strong).
    words
        What was done, with its numbers.
    value
        The figure.
    """

    name: str
    strength: int
    words: str
    value: float


@dataclass(frozen=True, slots=True)
class ShiftReport:
    """Figures of a model under simulated shifts.

    Parameters
    ----------
    metric
        Name of the figure.
    clean
        The figure on the same images without a shift.
    results
        One for each shift and strength that there was time for.
    sample_count
        Images that were used.
    left_out
        Shifts that there was no time for, or that do not apply to such images.
    larger_is_better
        False for losses.
    """

    metric: str
    clean: float
    results: tuple[ShiftResult, ...]
    sample_count: int
    left_out: tuple[str, ...] = ()
    larger_is_better: bool = True

    @property
    def mean(self) -> float:
        """Mean of the figures under all shifts; the clean figure where there was none."""
        return sum(result.value for result in self.results) / len(self.results) if self.results else self.clean

    @property
    def worst(self) -> ShiftResult | None:
        """The shift that costs most."""
        if not self.results:
            return None
        return (min if self.larger_is_better else max)(self.results, key=lambda result: result.value)
