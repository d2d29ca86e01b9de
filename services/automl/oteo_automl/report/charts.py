"""The report's figures, as SVG data URIs.

Only matplotlib's objects are used (no pyplot), so that nothing of one figure stays behind for the next, and no display is needed.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from oteo_automl.evaluation import scores
from oteo_automl.evaluation.bootstrap import Floats, Ints
from oteo_automl.evaluation.calibration import reliability
from oteo_automl.evaluation.operating import roc_curve

INK = "#1f2933"
MUTED = "#7b8794"
GRID = "#e4e7eb"
PALETTE = ("#0b6e99", "#d1662b", "#3d8b4f", "#8a4f9e", "#b8860b", "#4a5bbf", "#b03a5b", "#5f6b73")
"""Colours of classes and trials; told apart with the common colour blindnesses, and by brightness in print."""

_STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "legend.frameon": True,
    "legend.framealpha": 0.85,
    "legend.edgecolor": "none",
    "legend.fontsize": 8,
    "svg.hashsalt": "oteo",
}


@dataclass(frozen=True, slots=True)
class LearningCurve:
    """How a network learned.

    Parameters
    ----------
    name
        Of the trial.
    steps, train_loss
        Epochs, ascending, and the mean training loss of each (nats, for classifiers); may be empty.
    validation_steps, validation_loss
        The same for the validation part, which need not be measured after every epoch.
    best
        True for the trial that won.
    score_steps, score, score_name
        A figure of the validation part over the epochs, where one was measured (dense tasks: the objective), and its name.
    """

    name: str
    steps: Sequence[float]
    train_loss: Sequence[float]
    validation_steps: Sequence[float]
    validation_loss: Sequence[float]
    best: bool = False
    score_steps: Sequence[float] = ()
    score: Sequence[float] = ()
    score_name: str = ""


def _figure(width: float, height: float, columns: int = 1) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(1, columns, squeeze=False)[0]
    return figure, list(axes)


def _uri(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()


def _short(name: str, limit: int = 18) -> str:
    return name if len(name) <= limit else name[: limit - 1] + "…"


def confusion_chart(labels: Ints, predicted: Ints, classes: Sequence[str]) -> str:
    """Draw the confusion matrix: counts, coloured by the share of the true class."""
    count = len(classes)
    matrix = scores.confusion(np.ones((1, len(labels))), labels, predicted, count)[0]
    rows = matrix.sum(axis=1, keepdims=True)
    shares = np.divide(matrix, rows, out=np.zeros_like(matrix), where=rows > 0)
    side = min(1.7 + 0.62 * count, 8.5)
    with mpl.rc_context(_STYLE):
        figure, [axes] = _figure(side + 0.9, side)
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
        names = [_short(name) for name in classes]
        turned = max(len(name) for name in names) > 6 and count > 2
        axes.set_xticks(range(count), names, rotation=35 if turned else 0, ha="right" if turned else "center", rotation_mode="anchor")
        axes.set_yticks(range(count), names)
        axes.set_xlabel("the model says")
        axes.set_ylabel("truth")
        axes.tick_params(length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
        return _uri(figure)


def _shown(classes: Sequence[str]) -> list[int]:
    """Which classes get a curve: the second of two, all of up to eight, the first eight of more."""
    return [1] if len(classes) == 2 else list(range(min(len(classes), len(PALETTE))))


def roc_chart(labels: Ints, probabilities: Floats, classes: Sequence[str], points: Sequence[tuple[float, float, str]] = ()) -> str:
    """Draw ROC curves; `points` are (specificity, sensitivity, name) to mark."""
    with mpl.rc_context(_STYLE):
        figure, [axes] = _figure(4.1, 3.7)
        axes.plot([0, 1], [0, 1], color=MUTED, lw=0.9, ls=(0, (4, 3)))
        for colour, index in enumerate(_shown(classes)):
            positive = labels == index
            if not positive.any() or positive.all():
                continue
            curve = roc_curve(positive, probabilities[:, index])
            area = scores.auroc(np.ones((1, len(labels))), positive, probabilities[:, index])[0]
            name = f"{_short(classes[index])}: AUROC {area:.3f}"
            axes.plot(1 - curve.specificity, curve.sensitivity, color=PALETTE[colour], lw=1.7, label=name, drawstyle="steps-post")
        for specificity, sensitivity, name in points:
            axes.plot([1 - specificity], [sensitivity], "o", ms=6, mfc="white", mec=INK, mew=1.3)
            axes.annotate(name, (1 - specificity, sensitivity), xytext=(7, -11), textcoords="offset points", fontsize=8, color=INK)
        _unit_square(axes)
        axes.set_xlabel("false alarms (1 − specificity)")
        axes.set_ylabel("found (sensitivity)")
        axes.legend(loc="lower right", handlelength=1.2)
        return _uri(figure)


def precision_recall_chart(labels: Ints, probabilities: Floats, classes: Sequence[str]) -> str:
    """Draw precision-recall curves; the dashed line is a class's share, what guessing gives."""
    with mpl.rc_context(_STYLE):
        figure, [axes] = _figure(4.1, 3.7)
        for colour, index in enumerate(_shown(classes)):
            positive = labels == index
            if not positive.any() or positive.all():
                continue
            curve = roc_curve(positive, probabilities[:, index])
            area = scores.average_precision(np.ones((1, len(labels))), positive, probabilities[:, index])[0]
            name = f"{_short(classes[index])}: AUPRC {area:.3f}"
            axes.plot(curve.sensitivity, curve.precision, color=PALETTE[colour], lw=1.7, label=name, drawstyle="steps-pre")
            axes.axhline(float(positive.mean()), color=PALETTE[colour], lw=0.8, ls=(0, (4, 3)), alpha=0.7)
        _unit_square(axes)
        axes.set_xlabel("found (recall)")
        axes.set_ylabel("right when called (precision)")
        axes.legend(loc="lower left", handlelength=1.2)
        return _uri(figure)


def calibration_chart(labels: Ints, before: Floats, after: Floats, errors: tuple[float, float]) -> str:
    """Draw the calibration plot before and after temperature scaling; bars are Wilson intervals, dots' areas counts."""
    with mpl.rc_context(_STYLE):
        figure, panels = _figure(9.4, 3.5, 2)
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
        return _uri(figure)


def learning_chart(curves: Sequence[LearningCurve], limit: int = 6) -> str:
    """Draw the losses of the networks over their epochs, the winner's in bold; solid: validation, dotted: training."""
    with mpl.rc_context(_STYLE):
        figure, [axes] = _figure(9.4, 3.4)
        ordered = sorted(curves, key=lambda curve: not curve.best)[:limit]
        for curve, colour in zip(ordered, PALETTE, strict=False):
            width = 2.2 if curve.best else 1.2
            marker = "o" if len(curve.steps) < 3 else ""
            if curve.validation_loss:
                axes.plot(
                    curve.validation_steps, curve.validation_loss, color=colour, lw=width, marker=marker, ms=3, label=_short(curve.name, 40)
                )
            if curve.train_loss:
                label = None if curve.validation_loss else _short(curve.name, 40)
                axes.plot(curve.steps, curve.train_loss, color=colour, lw=width * 0.7, ls=(0, (1, 1.6)), marker=marker, ms=2, label=label)
        axes.set_xlabel("epoch")
        axes.set_ylabel("log-loss (smaller is better)")
        axes.set_ylim(0, _ceiling(ordered))
        axes.legend(loc="upper right")
        return _uri(figure)


def _ceiling(curves: Sequence[LearningCurve]) -> float | None:
    """Choose the upper end of the losses: a wild epoch, or one bad network, would press everything else to the floor."""
    losses = [loss for curve in curves for loss in (*curve.train_loss, *curve.validation_loss)]
    leading = [*curves[0].train_loss, *curves[0].validation_loss] if curves else []
    if not losses or not leading:
        return None
    return min(1.1 * max(losses), 3.0 * float(np.quantile(leading, 0.9)))


def metric_chart(rows: Sequence[tuple[str, float, float, float]], reference: float | None = None, reference_name: str = "") -> str:
    """Draw figures with their intervals in a row each: (name, value, lower, upper), 0 to 1."""
    with mpl.rc_context(_STYLE):
        figure, [axes] = _figure(9.4, 0.55 + 0.33 * len(rows))
        for place, (_, value, lower, upper) in enumerate(rows):
            axes.plot([lower, upper], [place, place], color=PALETTE[0], lw=3, alpha=0.35, solid_capstyle="round")
            axes.plot([value], [place], "o", color=PALETTE[0], ms=6)
        if reference is not None:
            axes.axvline(reference, color=MUTED, lw=1, ls=(0, (4, 3)))
            axes.annotate(
                reference_name,
                (reference, 0),
                xycoords=("data", "axes fraction"),
                xytext=(4, 3),
                textcoords="offset points",
                fontsize=8,
                color=MUTED,
            )
        axes.set_yticks(range(len(rows)), [row[0] for row in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlim(min(0.5, reference or 0.5, *(row[2] for row in rows)) - 0.02, 1.01)
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        return _uri(figure)


def certainty_chart(labels: Ints, probabilities: Floats) -> str:
    """Draw how sure the model is where it is right and where it is wrong."""
    confidence: NDArray[np.float64] = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    edges = np.linspace(np.floor(confidence.min() * 20) / 20, 1.0, 13)
    with mpl.rc_context(_STYLE):
        figure, [axes] = _figure(4.1, 2.7)
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
        return _uri(figure)


def set_size_chart(shares: Sequence[float]) -> str:
    """Draw how many classes the prediction sets hold."""
    with mpl.rc_context(_STYLE):
        figure, [axes] = _figure(4.1, 2.7)
        sizes = range(1, len(shares) + 1)
        axes.bar(list(sizes), [100 * share for share in shares], color=PALETTE[0], width=0.6)
        for size, share in zip(sizes, shares, strict=True):
            axes.text(size, 100 * share + 1.5, f"{share:.0%}", ha="center", fontsize=8)
        axes.set_xticks(list(sizes))
        axes.set_ylim(0, 112)
        axes.set_xlabel("classes in the set")
        axes.set_ylabel("% of test images")
        axes.grid(visible=False, axis="x")
        return _uri(figure)


def _unit_square(axes: Axes) -> None:
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.03)
    axes.set_aspect("equal")
