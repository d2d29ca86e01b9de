"""A measurement as it is kept: ``shifts/{operation}/shift.json``, written last."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from oteo_core.errors import DataLoss
from oteo_translate.shift import words
from oteo_translate.shift.study import Study

FORMAT = 1
RESULT, PAGE = "shift.json", "report.html"


def target(operation_id: str) -> str:
    """Give the folder of a measurement's files in the artifact store."""
    return f"shifts/{operation_id}"


def to_json(study: Study, *, operation: str) -> bytes:
    """Give the manifest, UTF-8: all figures, none of the images."""
    shift = study.shift
    data: dict[str, Any] = {
        "format": FORMAT,
        "operation": operation,
        "create_time": datetime.now(UTC).isoformat(timespec="seconds"),
        "home": study.home.domain.name,
        "dataset": study.shifted.domain.name,
        "model": study.model,
        "kind": shift.kind,
        "verdict": words.verdict(study),
        "because": words.because(study),
        "advice": words.advice(study),
        "alpha": shift.alpha,
        "seed": study.seed,
        "images": {"home": shift.images[0], "dataset": shift.images[1]},
        "groups": {"home": shift.groups[0], "dataset": shift.groups[1]},
        "tests": [asdict(test) for test in shift.tests],
        "statistics": [asdict(one) for one in shift.statistics],
        "detectable_difference": shift.detectable_difference,
        "prevalence": asdict(shift.prevalence) if shift.prevalence is not None else None,
        "remainder": asdict(shift.remainder) if shift.remainder is not None else None,
        "loss": asdict(study.loss) if study.loss is not None else None,
        "extremes": [
            {"sample": f"{study.shifted.domain.name}/samples/{study.shifted.domain.ids[one.row]}", **asdict(one)} for one in shift.extremes
        ],
        "typical": [f"{study.home.domain.name}/samples/{study.home.domain.ids[row]}" for row in shift.typical],
        "shared": study.shared,
        "unread": {"home": [one.to_dict() for one in study.home.unread], "dataset": [one.to_dict() for one in study.shifted.unread]},
        "input": study.policy.to_dict(),
        "notes": list(study.notes),
    }
    return json.dumps(_finite(data), indent=1, ensure_ascii=False, allow_nan=False).encode()


def from_json(data: bytes) -> dict[str, Any]:
    """Read a manifest.

    Raises
    ------
    DataLoss
        ``BROKEN_RESULT``.
    """
    try:
        values: dict[str, Any] = json.loads(data)
        form = values["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataLoss(f"not a measurement of shift: {error!r}", reason="BROKEN_RESULT") from error
    if form != FORMAT:
        raise DataLoss(f"a measurement of form {form}, and this program reads form {FORMAT}", reason="BROKEN_RESULT")
    return values


def _finite(value: Any) -> Any:
    """Give JSON values: what is not a number is null."""
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
