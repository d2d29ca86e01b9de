"""The figures of classifiers, as SVG data URIs."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from oteo_core.evaluation import scores
from oteo_core.evaluation.bootstrap import Floats, Ints
from oteo_core.evaluation.calibration import reliability
from oteo_core.evaluation.operating import roc_curve
from oteo_core.reporting.drawing import INK, MUTED, PALETTE, STYLE, blank, data_uri, short, unit_square


def confusion_chart(labels: Ints, predicted: Ints, classes: Sequence[str]) -> str:
    """Draw the confusion matrix: counts, coloured by the share of the true class."""
    count = len(classes)
    matrix = scores.confusion(np.ones((1, len(labels))), labels, predicted, count)[0]
    rows = matrix.sum(axis=1, keepdims=True)
    shares = np.divide(matrix, rows, out=np.zeros_like(matrix), where=rows > 0)
    side = min(1.7 + 0.62 * count, 8.5)
    with mpl.rc_context(STYLE):
        figure, [axes] = blank(side + 0.9, side)
        axes.grid(visible=False)
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1.15, aspect="equal")
        for row in range(count):
            for column in range(count):
                dark = shares[row, column] > 0.6
                text = f"{int(matrix[row, column])}"
                if rows[row, 0] and count <= 8:
                    text += f"\n{shares[row, column]:.0%}"
                weight = "bold" if row == column else "normal"
                axes.text(
                    column,
                    row,
                    text,
                    ha="center",
                    va="center",
                    color="white" if dark else INK,
                    fontsize=9 if count <= 8 else 7,
                    weight=weight,
                )
        names = [short(name) for name in classes]
        turned = max(len(name) for name in names) > 6 and count > 2
        axes.set_xticks(range(count), names, rotation=35 if turned else 0, ha="right" if turned else "center", rotation_mode="anchor")
        axes.set_yticks(range(count), names)
        axes.set_xlabel("the model says")
        axes.set_ylabel("truth")
        axes.tick_params(length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
        return data_uri(figure)


def _shown(classes: Sequence[str]) -> list[int]:
    """Which classes get a curve: the second of two, all of up to eight, the first eight of more."""
    return [1] if len(classes) == 2 else list(range(min(len(classes), len(PALETTE))))


def roc_chart(labels: Ints, probabilities: Floats, classes: Sequence[str], points: Sequence[tuple[float, float, str]] = ()) -> str:
    """Draw ROC curves; `points` are (specificity, sensitivity, name) to mark."""
    with mpl.rc_context(STYLE):
        figure, [axes] = blank(4.1, 3.7)
        axes.plot([0, 1], [0, 1], color=MUTED, lw=0.9, ls=(0, (4, 3)))
        for colour, index in enumerate(_shown(classes)):
            positive = labels == index
            if not positive.any() or positive.all():
                continue
            curve = roc_curve(positive, probabilities[:, index])
            area = scores.auroc(np.ones((1, len(labels))), positive, probabilities[:, index])[0]
            name = f"{short(classes[index])}: AUROC {area:.3f}"
            axes.plot(1 - curve.specificity, curve.sensitivity, color=PALETTE[colour], lw=1.7, label=name, drawstyle="steps-post")
        for specificity, sensitivity, name in points:
            axes.plot([1 - specificity], [sensitivity], "o", ms=6, mfc="white", mec=INK, mew=1.3)
            axes.annotate(name, (1 - specificity, sensitivity), xytext=(7, -11), textcoords="offset points", fontsize=8, color=INK)
        unit_square(axes)
        axes.set_xlabel("false alarms (1 − specificity)")
        axes.set_ylabel("found (sensitivity)")
        axes.legend(loc="lower right", handlelength=1.2)
        return data_uri(figure)


def precision_recall_chart(labels: Ints, probabilities: Floats, classes: Sequence[str]) -> str:
    """Draw precision-recall curves; the dashed line is a class's share, what guessing gives."""
    with mpl.rc_context(STYLE):
        figure, [axes] = blank(4.1, 3.7)
        for colour, index in enumerate(_shown(classes)):
            positive = labels == index
            if not positive.any() or positive.all():
                continue
            curve = roc_curve(positive, probabilities[:, index])
            area = scores.average_precision(np.ones((1, len(labels))), positive, probabilities[:, index])[0]
            name = f"{short(classes[index])}: AUPRC {area:.3f}"
            axes.plot(curve.sensitivity, curve.precision, color=PALETTE[colour], lw=1.7, label=name, drawstyle="steps-pre")
            axes.axhline(float(positive.mean()), color=PALETTE[colour], lw=0.8, ls=(0, (4, 3)), alpha=0.7)
        unit_square(axes)
        axes.set_xlabel("found (recall)")
        axes.set_ylabel("right when called (precision)")
        axes.legend(loc="lower left", handlelength=1.2)
        return data_uri(figure)


def calibration_chart(labels: Ints, before: Floats, after: Floats, errors: tuple[float, float]) -> str:
    """Draw the calibration plot before and after temperature scaling; bars are Wilson intervals, dots' areas counts."""
    with mpl.rc_context(STYLE):
        figure, panels = blank(9.4, 3.5, 2)
        titles = (f"before: ECE {errors[0]:.3f}", f"after: ECE {errors[1]:.3f}")
        lowest = min(float(before.max(axis=1).min()), float(after.max(axis=1).min()))
        start = np.floor(max(lowest - 0.08, 0.0) * 10) / 10
        for axes, probabilities, title, colour in zip(panels, (before, after), titles, (PALETTE[1], PALETTE[0]), strict=True):
            axes.plot([0, 1], [0, 1], color=MUTED, lw=0.9, ls=(0, (4, 3)))
            for point in reliability(labels, probabilities):
                size = 3 + 9 * np.sqrt(point.count / len(labels))
                axes.plot([point.confidence] * 2, [point.lower, point.upper], color=colour, lw=1.2, alpha=0.55)
                axes.plot([point.confidence], [point.accuracy], "o", color=colour, ms=size)
            axes.set_xlim(start, 1.02)
            axes.set_ylim(-0.02, 1.04)
            axes.set_title(title, fontsize=10)
            axes.set_xlabel("the model is so sure")
        panels[0].set_ylabel("it is right so often")
        return data_uri(figure)


def certainty_chart(labels: Ints, probabilities: Floats) -> str:
    """Draw how sure the model is where it is right and where it is wrong."""
    confidence: NDArray[np.float64] = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    edges = np.linspace(np.floor(confidence.min() * 20) / 20, 1.0, 13)
    with mpl.rc_context(STYLE):
        figure, [axes] = blank(4.1, 2.7)
        axes.hist(
            [confidence[right], confidence[~right]],
            bins=edges.tolist(),
            stacked=True,
            color=[PALETTE[0], PALETTE[1]],
            label=["right", "wrong"],
            rwidth=0.92,
        )
        axes.set_xlabel("probability of the class named")
        axes.set_ylabel("test images")
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(loc="upper left")
        return data_uri(figure)


def set_size_chart(shares: Sequence[float]) -> str:
    """Draw how many classes the prediction sets hold."""
    with mpl.rc_context(STYLE):
        figure, [axes] = blank(4.1, 2.7)
        sizes = range(1, len(shares) + 1)
        axes.bar(list(sizes), [100 * share for share in shares], color=PALETTE[0], width=0.6)
        for size, share in zip(sizes, shares, strict=True):
            axes.text(size, 100 * share + 1.5, f"{share:.0%}", ha="center", fontsize=8)
        axes.set_xticks(list(sizes))
        axes.set_ylim(0, 112)
        axes.set_xlabel("classes in the set")
        axes.set_ylabel("% of test images")
        axes.grid(visible=False, axis="x")
        return data_uri(figure)
