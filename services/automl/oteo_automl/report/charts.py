"""Figures that every task's report has, as SVG data URIs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.ticker import FuncFormatter, MaxNLocator

from oteo_core.reporting.drawing import GRID, INK, MUTED, PALETTE, STYLE, blank, data_uri, short


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


def learning_chart(curves: Sequence[LearningCurve], limit: int = 6, loss_name: str = "log-loss") -> str:
    """Draw how networks learned: losses over the epochs (solid: validation, dotted: training), and beside them the score where one was measured; the winner in bold."""
    with mpl.rc_context(STYLE):
        ordered = sorted(curves, key=lambda curve: not curve.best)[:limit]
        scored = [curve for curve in ordered if curve.score]
        figure, panels = blank(9.4, 3.4, 2 if scored else 1)
        axes = panels[0]
        for curve, colour in zip(ordered, PALETTE, strict=False):
            width = 2.2 if curve.best else 1.2
            marker = "o" if len(curve.steps) < 3 else ""
            if curve.validation_loss:
                axes.plot(
                    curve.validation_steps, curve.validation_loss, color=colour, lw=width, marker=marker, ms=3, label=short(curve.name, 40)
                )
            if curve.train_loss:
                label = None if curve.validation_loss else short(curve.name, 40)
                axes.plot(curve.steps, curve.train_loss, color=colour, lw=width * 0.7, ls=(0, (1, 1.6)), marker=marker, ms=2, label=label)
            if curve.score:
                marker = "o" if len(curve.score) < 3 else ""
                panels[1].plot(curve.score_steps, curve.score, color=colour, lw=width, marker=marker, ms=3, label=short(curve.name, 40))
        for panel in panels:
            panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("epoch")
        axes.set_ylabel(f"{loss_name} (smaller is better)")
        axes.set_ylim(0, _ceiling(ordered))
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc="upper right")
        if scored:
            panels[1].set_xlabel("epoch")
            panels[1].set_ylabel(f"{scored[0].score_name} on the validation part")
            panels[1].legend(loc="lower right")
        return data_uri(figure)


def _ceiling(curves: Sequence[LearningCurve]) -> float | None:
    """Choose the upper end of the losses: a wild epoch, or one bad network, would press everything else to the floor."""
    losses = [loss for curve in curves for loss in (*curve.train_loss, *curve.validation_loss)]
    leading = [*curves[0].train_loss, *curves[0].validation_loss] if curves else []
    if not losses or not leading:
        return None
    return min(1.1 * max(losses), 3.0 * float(np.quantile(leading, 0.9)))


def metric_chart(rows: Sequence[tuple[str, float, float, float]], reference: float | None = None, reference_name: str = "") -> str:
    """Draw figures with their intervals in a row each: (name, value, lower, upper), 0 to 1."""
    with mpl.rc_context(STYLE):
        figure, [axes] = blank(9.4, 0.55 + 0.33 * len(rows))
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
        return data_uri(figure)


def shift_chart(rows: Sequence[tuple[str, float | None, float | None]], clean: float, name: str) -> str:
    """Draw what simulated shifts do to a figure: (shift, value when mild, value when strong) in a row each; the dashed line is the figure without."""
    with mpl.rc_context(STYLE):
        figure, [axes] = blank(9.4, 0.75 + 0.3 * len(rows))
        axes.axvline(clean, color=MUTED, lw=1, ls=(0, (4, 3)))
        for place, (_, mild, strong) in enumerate(rows):
            shown = [value for value in (mild, strong) if value is not None]
            axes.plot([clean, *shown], [place] * (len(shown) + 1), color=GRID, lw=2.5, zorder=1)
            if mild is not None:
                axes.plot([mild], [place], "o", color=PALETTE[0], ms=5.5, label="mild" if not place else None)
            if strong is not None:
                axes.plot([strong], [place], "D", color=PALETTE[1], ms=5.5, label="strong" if not place else None)
        axes.set_yticks(range(len(rows)), [row[0] for row in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlabel(name)
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc="best")
        return data_uri(figure)


def subgroup_chart(rows: Sequence[tuple[str, float, float | None, float | None, int]], whole: float, name: str) -> str:
    """Draw a figure by subgroup: (name, value, lower, upper, images) in a row each; the dashed line is all images together."""
    with mpl.rc_context(STYLE):
        figure, [axes] = blank(9.4, 0.75 + 0.3 * len(rows))
        axes.axvline(whole, color=MUTED, lw=1, ls=(0, (4, 3)))
        for place, (_, value, lower, upper, _count) in enumerate(rows):
            if lower is not None and upper is not None:
                axes.plot([lower, upper], [place, place], color=PALETTE[0], lw=3, alpha=0.35, solid_capstyle="round")
            axes.plot([value], [place], "o", color=PALETTE[0], ms=6)
        axes.set_yticks(range(len(rows)), [f"{short(row[0], 34)} ({row[4]})" for row in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlabel(name)
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        return data_uri(figure)


def front_chart(points: Sequence[tuple[str, float, float, bool, bool]], name: str, larger_is_better: bool) -> str:
    """Draw a figure against the time at inference: (name, milliseconds, figure, chosen, on the front) for each model; the line is the front."""
    with mpl.rc_context(STYLE):
        figure, [axes] = blank(9.4, 3.3)
        front = sorted((time, value) for _, time, value, _, best in points if best)
        axes.plot([time for time, _ in front], [value for _, value in front], color=PALETTE[0], lw=1.2, drawstyle="steps-post", alpha=0.6)
        for label, time, value, chosen, best in points:
            colour = PALETTE[1] if chosen else PALETTE[0] if best else MUTED
            axes.plot([time], [value], "o", color=colour, ms=8 if chosen else 5.5)
            if chosen or best:
                axes.annotate(short(label, 28), (time, value), xytext=(6, 5), textcoords="offset points", fontsize=8, color=INK)
        if max(point[1] for point in points) > 8 * max(min(point[1] for point in points), 1e-6):
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        if not larger_is_better:
            axes.invert_yaxis()
        axes.margins(x=0.14, y=0.18)
        axes.set_xlabel("milliseconds an image")
        axes.set_ylabel(name)
        return data_uri(figure)


def data_chart(
    counts: Sequence[int],
    scores: Sequence[float],
    line: tuple[Sequence[float], Sequence[float]] | None,
    predicted: tuple[float, float, float, float] | None,
    name: str,
) -> str:
    """Draw a score over the number of training images, the power law through it, and (count, value, lower, upper) of what is expected of more."""
    with mpl.rc_context(STYLE):
        figure, [axes] = blank(9.4, 3.2)
        if line is not None:
            axes.plot(line[0], line[1], color=PALETTE[0], lw=1.5)
        axes.plot(counts, scores, "o", color=PALETTE[0], ms=6, label="measured")
        if predicted is not None:
            count, value, lower, upper = predicted
            axes.plot([count, count], [lower, upper], color=PALETTE[1], lw=3, alpha=0.4, solid_capstyle="round")
            axes.plot([count], [value], "D", color=PALETTE[1], ms=6, label="expected with twice the images")
        axes.set_xlabel("training images")
        axes.set_ylabel(name)
        axes.set_xlim(0, None)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(loc="best")
        return data_uri(figure)
