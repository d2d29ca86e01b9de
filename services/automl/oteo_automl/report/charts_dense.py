"""The figures of detectors and segmenters, as SVG data URIs."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from oteo_automl.report.data import ImageFigures, PrecisionRecall, ScoreCalibration, ThresholdRow
from oteo_core.evaluation.bootstrap import Ints
from oteo_core.reporting.drawing import INK, MUTED, PALETTE, STYLE, blank, data_uri, short, unit_square


def object_curves(curves: Sequence[PrecisionRecall]) -> str:
    """Draw precision over recall of each class; the ring is the package's threshold for it."""
    with mpl.rc_context(STYLE):
        figure, [axes] = blank(4.1, 3.7)
        for curve, colour in zip(curves, PALETTE, strict=False):
            label = f"{short(curve.class_name)}: AP {curve.average_precision:.3f}"
            # To the end of what was found, then straight down: what was not found cannot be had at any precision.
            recall = np.concatenate([[0.0], curve.recall, curve.recall[-1:]])
            precision = np.concatenate([curve.precision[:1], curve.precision, [0.0]])
            axes.plot(recall, precision, color=colour, lw=1.6, label=label)
            if curve.chosen is not None and (curve.thresholds >= curve.chosen).any():
                at = int(np.flatnonzero(curve.thresholds >= curve.chosen)[-1])
                axes.plot([curve.recall[at]], [curve.precision[at]], "o", ms=6, mfc="white", mec=colour, mew=1.5)
        unit_square(axes)
        axes.set_xlabel("found (recall)")
        axes.set_ylabel("of what it reports, right (precision)")
        axes.legend(loc="lower left", handlelength=1.2)
        return data_uri(figure)


def threshold_chart(rows: Sequence[ThresholdRow]) -> str:
    """Draw recall, precision and F1 over the score threshold."""
    ordered = sorted(rows, key=lambda row: row.threshold)
    with mpl.rc_context(STYLE):
        figure, [axes] = blank(4.1, 3.7)
        places = [row.threshold for row in ordered]
        axes.plot(places, [row.recall for row in ordered], color=PALETTE[0], lw=1.6, label="found (recall)")
        axes.plot(places, [row.precision for row in ordered], color=PALETTE[1], lw=1.6, label="right (precision)")
        axes.plot(places, [row.f1 for row in ordered], color=INK, lw=1.2, ls=(0, (4, 2)), label="F1")
        for row in ordered:
            if row.chosen:
                axes.axvline(row.threshold, color=MUTED, lw=1, ls=(0, (4, 3)))
        unit_square(axes)
        axes.set_xlabel("score threshold")
        axes.legend(loc="lower center")
        return data_uri(figure)


def score_calibration_chart(calibration: ScoreCalibration) -> str:
    """Draw how sure and how often right; dots' areas are counts."""
    with mpl.rc_context(STYLE):
        figure, [axes] = blank(4.1, 3.7)
        axes.plot([0, 1], [0, 1], color=MUTED, lw=0.9, ls=(0, (4, 3)))
        share = calibration.counts / max(float(calibration.counts.sum()), 1.0)
        for confidence, accuracy, part in zip(calibration.confidence, calibration.accuracy, share, strict=True):
            axes.plot([confidence], [accuracy], "o", color=PALETTE[0], ms=3 + 11 * float(np.sqrt(part)))
        unit_square(axes)
        axes.set_xlabel("score")
        axes.set_ylabel(f"share of {calibration.what} that are right")
        return data_uri(figure)


def image_chart(figures: ImageFigures, name: str) -> str:
    """Draw how the images fare, one by one."""
    values = figures.values[np.isfinite(figures.values)]
    with mpl.rc_context(STYLE):
        figure, [axes] = blank(4.1, 3.7)
        axes.hist(values, bins=np.linspace(0, 1, 21).tolist(), color=PALETTE[0], rwidth=0.92)
        if len(values):
            middle = float(np.median(values))
            axes.axvline(middle, color=INK, lw=1, ls=(0, (4, 3)))
            axes.annotate(f"median {middle:.2f}", (middle, 1), xycoords=("data", "axes fraction"), xytext=(-4, -10), ha="right",
                          textcoords="offset points", fontsize=8)  # fmt: skip
        axes.set_xlim(-0.02, 1.02)
        axes.set_xlabel(f"{name} of an image")
        axes.set_ylabel("test images")
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        return data_uri(figure)


def count_chart(true_counts: Ints, found_counts: Ints) -> str:
    """Draw how many objects were found over how many there are, an image a dot."""
    with mpl.rc_context(STYLE):
        figure, [axes] = blank(4.1, 3.7)
        largest = float(max(int(true_counts.max(initial=0)), int(found_counts.max(initial=0)), 1)) * 1.05
        axes.plot([0, largest], [0, largest], color=MUTED, lw=0.9, ls=(0, (4, 3)))
        axes.plot(true_counts, found_counts, "o", color=PALETTE[0], ms=4.5, alpha=0.55)
        axes.set_xlim(-0.02 * largest, largest)
        axes.set_ylim(-0.02 * largest, largest)
        axes.set_aspect("equal")
        axes.set_xlabel("objects that are there")
        axes.set_ylabel("objects that it finds")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        return data_uri(figure)


def count_matrix(matrix: NDArray[np.int64], rows: Sequence[str], columns: Sequence[str], *, counts: bool) -> str:
    """Draw who was taken for whom: shares of each row, with counts where they are small enough to be read."""
    totals = matrix.sum(axis=1, keepdims=True)
    shares = np.divide(matrix, totals, out=np.zeros(matrix.shape), where=totals > 0)
    side = min(1.9 + 0.62 * len(rows), 8.5)
    with mpl.rc_context(STYLE):
        figure, [axes] = blank(side + 1.1, side)
        axes.grid(visible=False)
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1.15, aspect="equal")
        for row in range(len(rows)):
            for column in range(len(columns)):
                if counts and row == column == len(rows) - 1:
                    continue
                share = f"{shares[row, column]:.0%}" if totals[row, 0] else ""
                text = f"{int(matrix[row, column])}\n{share}" if counts and len(rows) <= 9 else share
                colour = "white" if shares[row, column] > 0.6 else INK
                weight = "bold" if row == column else "normal"
                size = 9 if len(rows) <= 9 else 7
                axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=size, weight=weight)
        names = [short(name) for name in columns]
        turned = max(len(name) for name in names) > 6 and len(names) > 2
        axes.set_xticks(range(len(names)), names, rotation=35 if turned else 0, ha="right" if turned else "center", rotation_mode="anchor")
        axes.set_yticks(range(len(rows)), [short(name) for name in rows])
        axes.set_xlabel("the model says")
        axes.set_ylabel("truth")
        axes.tick_params(length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
        return data_uri(figure)


def label_chart(rows: Sequence[tuple[str, Sequence[float], Sequence[float]]], x_label: str, y_label: str, *, diagonal: str = "") -> str:
    """Draw a curve for each label: (legend, x, y); `diagonal` is "up" for a line that guessing or a perfect match gives."""
    with mpl.rc_context(STYLE):
        figure, [axes] = blank(4.1, 3.7)
        if diagonal == "up":
            axes.plot([0, 1], [0, 1], color=MUTED, lw=0.9, ls=(0, (4, 3)))
        for (label, x, y), colour in zip(rows, PALETTE, strict=False):
            axes.plot(x, y, color=colour, lw=1.6, label=label)
        unit_square(axes)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        if rows:
            axes.legend(loc="best", handlelength=1.2)
        return data_uri(figure)
