"""Image sizes that do not go together."""

from __future__ import annotations

import numpy as np

from oteo_augment.auditing.data import AuditData
from oteo_augment.auditing.findings import AuditFinding, CheckResult, plural, some
from oteo_core.datasets import Severity

_NAME = "sizes"
_TINY = 32
_FACTOR = 2.0
_SPREAD = 5.0
_MIXED = 4.0
_KIND = 0.05
"""Share of images from which they are a kind of their own and not outliers."""


def run(data: AuditData) -> CheckResult:
    """Report tiny images, images far from the others in area or form, and a wide range as a whole."""
    places = data.readable
    if not places:
        return CheckResult(note="No image could be read.")
    widths = np.array([data.measured[i].width for i in places], np.float64)
    heights = np.array([data.measured[i].height for i in places], np.float64)
    found: list[AuditFinding] = []
    area, form = np.log2(widths * heights), np.log2(widths / heights)
    middle = 2 ** float(np.median(area))
    said: set[int] = set()
    for values, what in ((area, "area"), (form, "aspect ratio")):
        centre = float(np.median(values))
        away = np.abs(values - centre)
        # At least four times the area, or twice the aspect ratio; and far outside of what the dataset itself varies by.
        limit = max(_FACTOR if what == "area" else 1.0, _SPREAD * 1.4826 * float(np.median(away)))
        far = np.flatnonzero(away > limit)
        if len(far) > _KIND * len(places):
            continue  # so many are no outliers: MIXED_SIZES says it
        for order in far:
            index = places[order]
            if index in said:
                continue
            said.add(index)
            told = (
                f"it has {_size(data, index)} pixels, {_times(values[order] - centre)} the {what} of the middle image "
                f"({middle:,.0f} pixels in all, aspect ratio {2 ** float(np.median(form)):.2f}): another kind, a crop or a thumbnail?"
            )
            found.append(AuditFinding(_NAME, Severity.WARNING, "SIZE_OUTLIER", told, data.samples[index].id, score=float(away[order])))
    tiny = np.flatnonzero(np.minimum(widths, heights) < _TINY)
    for order in tiny:
        index = places[order]
        told = (
            f"it has only {int(widths[order])} x {int(heights[order])} pixels; under {_TINY} little is to be seen. Look for the original."
        )
        found.append(
            AuditFinding(
                _NAME, Severity.WARNING, "TINY_IMAGE", told, data.samples[index].id, score=_TINY - float(min(widths[order], heights[order]))
            )
        )
    different = len({(w, h) for w, h in zip(widths.tolist(), heights.tolist(), strict=True)})
    if area.max() - area.min() >= np.log2(_MIXED):
        small, large = places[int(area.argmin())], places[int(area.argmax())]
        told = (
            f"sizes are mixed: {different} different ones, from {_size(data, small)} to {_size(data, large)} "
            f"({some(data.named([small, large]))}). All are brought to one size in training: see that what matters stays visible in the largest."
        )
        found.append(AuditFinding(_NAME, Severity.INFO, "MIXED_SIZES", told, related=data.ids([small, large]), score=float(np.ptp(area))))
    note = f"{plural(different, 'size')}; {int(widths.min())} to {int(widths.max())} pixels wide, {int(heights.min())} to {int(heights.max())} high."
    return CheckResult(tuple(found), note)


def _times(log: float) -> str:
    return f"{2**log:.1f} times" if log > 0 else f"1/{2**-log:.1f} of"


def _size(data: AuditData, index: int) -> str:
    return f"{data.measured[index].width} x {data.measured[index].height}"
