"""What judging a model found, and its file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from oteo_core.packages import MetricValue

RESULT = "evaluation.json"
"""The manifest of an evaluation, written last."""


@dataclass(frozen=True, slots=True)
class PartFigures:
    """Figures of a part of the images; none where it has fewer than five."""

    kind: str
    value: str
    images: int
    groups: int
    metrics: list[MetricValue] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Remark:
    """Something that a reader of the figures should know: severity "info", "warning" or "error", a code in capitals, a sentence."""

    severity: str
    code: str
    message: str
    sample: str = ""
    path: str = ""


@dataclass(slots=True)
class Evaluation:
    """A model judged on a dataset.

    Parameters
    ----------
    model, model_digest, task, classes
        Of the package.
    dataset, dataset_name, dataset_digest, domain, splits
        What it was judged on.
    images, groups, skipped
        Images judged, groups that they are of, images left out.
    metrics
        With intervals.
    parts
        Figures of parts.
    remarks
        See `Remark`.
    predictions
        File of each form, inside the evaluation's folder.
    operation, create_time, seed
        What made it, when (ISO 8601), and the seed of the intervals.
    confusion
        Counts: true class (row) by answer, for classification; empty otherwise.
    """

    model: str
    model_digest: str
    task: str
    classes: list[str]
    dataset: str
    dataset_name: str
    dataset_digest: str
    domain: str
    splits: list[str]
    images: int
    groups: int
    skipped: int
    metrics: list[MetricValue]
    parts: list[PartFigures]
    remarks: list[Remark]
    predictions: dict[str, str]
    operation: str
    create_time: str
    seed: int = 0
    confusion: list[list[int]] = field(default_factory=list)

    def to_json(self) -> bytes:
        """Give JSON, UTF-8."""
        return json.dumps({"format": 1, **asdict(self)}, indent=1, ensure_ascii=False, allow_nan=False).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Evaluation:
        """Read what `to_json` gave."""
        values: dict[str, Any] = json.loads(data)
        values.pop("format")
        values["metrics"] = [MetricValue(**metric) for metric in values["metrics"]]
        values["parts"] = [
            PartFigures(**{**part, "metrics": [MetricValue(**metric) for metric in part["metrics"]]}) for part in values["parts"]
        ]
        values["remarks"] = [Remark(**remark) for remark in values["remarks"]]
        return cls(**values)
