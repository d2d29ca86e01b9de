"""What a format could not hold, counted as it is met."""

from __future__ import annotations

from dataclasses import dataclass, field

from oteo_core.datasets import Finding, Severity

_MOST_RELATED = 100
"""Samples that are named for one loss; the message says how many there are in all."""


@dataclass(slots=True)
class _Loss:
    severity: Severity
    what: str
    count: int = 0
    samples: int = 0
    named: list[str] = field(default_factory=list)
    last: str = ""


class Losses:
    """Counts by code; memory does not grow with the number of samples."""

    def __init__(self) -> None:
        self._found: dict[str, _Loss] = {}

    def add(self, code: str, what: str, sample: str = "", *, count: int = 1, severity: Severity = Severity.WARNING) -> None:
        """Count something that is lost.

        Parameters
        ----------
        code
            For programs, in capitals.
        what
            A sentence without its first number: "outlines became boxes: Pascal VOC holds none". That of the first call is kept.
        sample
            Id of the sample; "" for a loss of the whole dataset. Losses of one sample come one after the other.
        count
            How many things.
        severity
            ERROR where a sample or an annotation is not in what was written at all.
        """
        loss = self._found.setdefault(code, _Loss(severity, what))
        loss.count += count
        if sample and sample != loss.last:
            loss.last = sample
            loss.samples += 1
            if len(loss.named) < _MOST_RELATED:
                loss.named.append(sample)

    def count_of(self, code: str) -> int:
        """Give how often a loss was met."""
        return self._found[code].count if code in self._found else 0

    def findings(self) -> tuple[Finding, ...]:
        """Give one finding for each code, the worst first."""
        order = [Severity.ERROR, Severity.WARNING, Severity.INFO]
        rows = sorted(self._found.items(), key=lambda item: (order.index(item[1].severity), item[0]))
        return tuple(Finding(loss.severity, code, _message(loss), related=tuple(loss.named)) for code, loss in rows)


def _message(loss: _Loss) -> str:
    if not loss.samples:
        return loss.what
    where = f"{loss.samples} sample{'s' if loss.samples > 1 else ''}"
    return f"{loss.count} in {where}: {loss.what}"
