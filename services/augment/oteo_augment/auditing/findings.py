"""What a check says: findings, and what would mend them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from oteo_core.datasets import Severity

RANK = {Severity.ERROR: 0, Severity.WARNING: 1, Severity.INFO: 2}
"""Order of severities, worst first."""


@dataclass(frozen=True, slots=True)
class AnnotationRef:
    """One annotation: its sample, the field of `Sample` that holds it ("boxes", "polygons", "rle", "oriented_boxes" or "keypoints") and its place there, from 0."""

    sample: str
    kind: str
    index: int


@dataclass(frozen=True, slots=True)
class AuditFinding:
    """One thing that an audit found.

    Parameters
    ----------
    check
        Name of the check.
    severity
        ERROR: it would spoil a training or its judgement; WARNING: somebody should look; INFO: good to know.
    code
        For programs, in capitals.
    message
        A sentence with numbers and what to do.
    sample
        Id of the sample; "" for a finding on the whole dataset.
    related
        Ids of other samples that it concerns.
    score
        How bad, among findings of one code; the larger the worse.
    boxes
        Places to draw on the sample's picture: left, upper, right, lower edge, pixels.
    drop
        Ids of samples that a cleaned dataset leaves out.
    drop_annotations
        Annotations that a cleaned dataset leaves out.
    """

    check: str
    severity: Severity
    code: str
    message: str
    sample: str = ""
    related: tuple[str, ...] = ()
    score: float = 0.0
    boxes: tuple[tuple[float, float, float, float], ...] = ()
    drop: tuple[str, ...] = ()
    drop_annotations: tuple[AnnotationRef, ...] = ()

    @property
    def samples(self) -> tuple[str, ...]:
        """All samples that it concerns, its own first."""
        return (self.sample, *self.related) if self.sample else self.related

    def key(self) -> tuple[int, float, str, str]:
        """Sort worst first, within one check."""
        return RANK[self.severity], -self.score, self.code, self.sample

    def to_json(self, paths: dict[str, str]) -> str:
        """Give one line of the machine-readable list; `paths` are the samples' paths in the source."""
        fields: dict[str, Any] = {
            "severity": self.severity.value,
            "code": self.code,
            "check": self.check,
            "message": self.message,
            "sample": self.sample,
            "path": paths.get(self.sample, ""),
            "related_samples": list(self.related),
            "related_paths": [paths.get(name, "") for name in self.related],
            "score": round(self.score, 6),
        }
        if self.boxes:
            fields["places"] = [[round(value, 2) for value in box] for box in self.boxes]
        if self.drop:
            fields["fix_drops_samples"] = list(self.drop)
        if self.drop_annotations:
            fields["fix_drops_annotations"] = [{"sample": r.sample, "kind": r.kind, "index": r.index} for r in self.drop_annotations]
        return json.dumps(fields, ensure_ascii=False, sort_keys=True)


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What a check found.

    Parameters
    ----------
    findings
        In any order.
    note
        A sentence on what was looked at, for the report; also where nothing was found.
    figures
        Numbers for the report and the summary, JSON.
    """

    findings: tuple[AuditFinding, ...] = ()
    note: str = ""
    figures: dict[str, Any] = field(default_factory=dict)


def plural(count: int, one: str, many: str = "") -> str:
    """Give ``"1 image"`` or ``"1,234 images"``."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def some(names: list[str] | tuple[str, ...], limit: int = 3) -> str:
    """Name a few and count the rest: ``"a.png, b.png, c.png and 4 more"``."""
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit:,} more"
