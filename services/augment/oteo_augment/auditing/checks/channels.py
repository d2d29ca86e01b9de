"""Brightness and contrast: images and channels that hold little, are cut off, or stand apart."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from oteo_augment.auditing.data import AuditData
from oteo_augment.auditing.findings import AuditFinding, CheckResult, plural, some
from oteo_augment.auditing.measuring import Measured
from oteo_core.datasets import Severity

_NAME = "channels"
_BLACK, _WHITE = 10 / 255, 245 / 255
_CLIPPED = 0.1
_SPREAD = 8.0
_ENOUGH = 20
_KIND = 0.05
"""Share of images from which they are a kind of their own and not outliers."""


def run(data: AuditData) -> CheckResult:
    """Report images without content, clipped ones, outliers in brightness or contrast, and channels that are empty."""
    rows = [(index, data.measured[index]) for index in data.readable]
    if not rows:
        return CheckResult(note="No image could be read.")
    found: list[AuditFinding] = []
    usual_top = float(np.median([row.at_top for _, row in rows]))
    plain: set[int] = set()
    clipped: list[int] = []
    for index, row in rows:
        if row.not_finite:
            told = (
                f"{plural(row.not_finite, 'pixel is', 'pixels are')} NaN or infinite, and a training that meets one ends in NaN: "
                "write it again with numbers, or leave it out."
            )
            found.append(AuditFinding(_NAME, Severity.ERROR, "NOT_FINITE", told, data.samples[index].id, score=row.not_finite))
        verdict = _content(row)
        if verdict:
            plain.add(index)
            code, words = verdict
            found.append(
                AuditFinding(
                    _NAME, Severity.WARNING, code, f"{words}; look at it and leave it out if nothing is to be seen.", data.samples[index].id
                )
            )
        elif row.at_top > max(_CLIPPED, usual_top + _CLIPPED):
            clipped.append(index)
    found += _over_exposed(data, clipped, len(rows), usual_top)
    found += _apart(data, [(index, row) for index, row in rows if index not in plain])
    found += _empty_channels(data, rows)
    return CheckResult(tuple(found), *_figures(rows))


def _over_exposed(data: AuditData, clipped: list[int], count: int, usual: float) -> list[AuditFinding]:
    if len(clipped) > _KIND * count:
        told = (
            f"{len(clipped):,} of {count:,} images have over {_CLIPPED:.0%} of their pixels at the largest value: a white background, or over-exposed, "
            f"and what was there is lost: {some(data.named(clipped))}."
        )
        return [AuditFinding(_NAME, Severity.INFO, "MANY_CLIPPED", told, related=data.ids(clipped), score=len(clipped))]
    found = []
    for index in clipped:
        share = data.measured[index].at_top
        told = f"{share:.0%} of its pixels are at the largest value, {usual:.1%} in the middle image: over-exposed, and what was there is lost."
        found.append(AuditFinding(_NAME, Severity.WARNING, "CLIPPED", told, data.samples[index].id, score=share))
    return found


def _content(row: Measured) -> tuple[str, str] | None:
    if all(low == high for low, high in zip(row.low, row.high, strict=True)):
        return "CONSTANT_IMAGE", "all its pixels are the same"
    if row.dtype == "uint8" and row.bright <= _BLACK:
        return "NEARLY_BLACK", f"99.5 % of its pixels are at most {row.bright * 255:.0f} of 255"
    if row.dtype == "uint8" and row.dark >= _WHITE:
        return "NEARLY_WHITE", f"99.5 % of its pixels are at least {row.dark * 255:.0f} of 255"
    return None


def _apart(data: AuditData, rows: list[tuple[int, Measured]]) -> list[AuditFinding]:
    """Find images whose mean or spread is far outside of what the others vary by (modified z-score, Iglewicz and Hoaglin 1993)."""
    found = []
    types = Counter(row.dtype for _, row in rows)
    for dtype, count in types.items():
        if count < _ENOUGH:
            continue
        these = [(index, row) for index, row in rows if row.dtype == dtype]
        for what, values in (
            ("brightness", np.array([float(np.mean(row.mean[:3])) for _, row in these])),
            ("contrast", np.array([float(np.mean(row.std[:3])) for _, row in these])),
        ):
            middle = float(np.median(values))
            spread = 1.4826 * float(np.median(np.abs(values - middle)))
            # A dataset of one light and one stain hardly varies: a twentieth of the range is no outlier even there.
            limit = max(_SPREAD * spread, 0.05 * these[0][1].full if dtype != "float32" else 0.0)
            far = np.flatnonzero(np.abs(values - middle) > limit) if limit > 0 else np.empty(0, np.intp)
            if len(far) > _KIND * count:
                # So many are no outliers: the dataset holds two kinds of images.
                ids = data.ids([these[order][0] for order in far])
                told = (
                    f"the {what} of {plural(len(ids), 'image')} of {count:,} is far from that of the rest ({np.median(values[far]):.4g} against "
                    f"{np.median(np.delete(values, far)):.4g}): the dataset holds more than one kind of image; see that every part and class has both."
                )
                found.append(AuditFinding(_NAME, Severity.INFO, f"MIXED_{what.upper()}", told, related=ids, score=len(ids)))
                continue
            for order in far:
                index = these[order][0]
                told = (
                    f"its {what} is {values[order]:.4g}, that of the middle image {middle:.4g} (spread {spread:.3g}): "
                    "another exposure, device or subject?"
                )
                score = float(abs(values[order] - middle) / max(spread, 1e-9))
                found.append(AuditFinding(_NAME, Severity.WARNING, f"{what.upper()}_OUTLIER", told, data.samples[index].id, score=score))
    return found


def _empty_channels(data: AuditData, rows: list[tuple[int, Measured]]) -> list[AuditFinding]:
    holders: dict[int, list[int]] = {}
    for index, row in rows:
        for channel in range(row.channels):
            opaque_alpha = channel == row.channels - 1 and row.channels in (2, 4)
            if row.low[channel] == row.high[channel] and not opaque_alpha and any(a < b for a, b in zip(row.low, row.high, strict=True)):
                holders.setdefault(channel, []).append(index)
    return [
        AuditFinding(
            _NAME, Severity.INFO, "CONSTANT_CHANNEL",
            f"channel {channel + 1} is the same everywhere in {plural(len(ids), 'image')}: {some(data.named(ids))}. It carries nothing there.",
            related=data.ids(ids), score=len(ids),
        )
        for channel, ids in sorted(holders.items())
    ]  # fmt: skip


def _figures(rows: list[tuple[int, Measured]]) -> tuple[str, dict[str, Any]]:
    """Give mean and standard deviation of each channel over all pixels of all images of the commonest kind, as a share of its range."""
    kind, count = Counter((row.dtype, row.channels) for _, row in rows).most_common(1)[0]
    these = [row for _, row in rows if (row.dtype, row.channels) == kind]
    weight = np.array([row.width * row.height for row in these], np.float64)
    mean = np.array([row.mean for row in these]) / these[0].full
    square = (np.array([row.std for row in these]) / these[0].full) ** 2 + mean**2
    total = (weight[:, None] * mean).sum(axis=0) / weight.sum()
    spread = np.sqrt(np.maximum((weight[:, None] * square).sum(axis=0) / weight.sum() - total**2, 0))
    told = ", ".join(f"{m:.3f} ± {s:.3f}" for m, s in zip(total, spread, strict=True))
    note = (
        f"Mean ± standard deviation of each channel, over {plural(count, 'image')} of {kind[0]} with {plural(kind[1], 'channel')}: {told}."
    )
    return note, {
        "pixel_type": kind[0], "channels": kind[1], "images": count,
        "mean": [round(float(v), 6) for v in total], "std": [round(float(v), 6) for v in spread],
    }  # fmt: skip
