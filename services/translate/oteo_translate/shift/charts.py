"""Figures of the page on a shift, as SVG data URIs."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.ticker import MaxNLocator

from oteo_core.reporting.drawing import MUTED, PALETTE, STYLE, blank, data_uri, short
from oteo_translate.shift.sides import Floats

HOME, SHIFTED = PALETTE[0], PALETTE[1]
_A_ROW = 3


def histograms(panels: Sequence[tuple[str, Floats, Floats]], names: tuple[str, str]) -> list[str]:
    """Draw (title, values at home, values of the shifted set) side by side, three to a figure, with the same bins and shares of images for heights."""
    figures = []
    with mpl.rc_context(STYLE):
        for start in range(0, len(panels), _A_ROW):
            part = panels[start : start + _A_ROW]
            figure, axes = blank(9.4, 2.5, _A_ROW)
            for axis, (title, ours, theirs) in zip(axes, part, strict=False):
                low, high = float(min(ours.min(), theirs.min())), float(max(ours.max(), theirs.max()))
                bins = np.linspace(low, high if high > low else low + 1e-6, 21).tolist()
                for values, colour, name in ((ours, HOME, names[0]), (theirs, SHIFTED, names[1])):
                    weights = np.full(len(values), 1.0 / len(values))
                    axis.hist(values, bins, weights=weights, color=colour, alpha=0.35)
                    axis.hist(values, bins, weights=weights, color=colour, histtype="step", lw=1.4, label=short(name, 24))
                axis.set_title(title, fontsize=9)
                axis.set_yticks([])
                axis.xaxis.set_major_locator(MaxNLocator(5))
                axis.spines["left"].set_visible(False)
            for axis in axes[len(part) :]:
                axis.set_visible(False)
            if not start:
                axes[0].legend(loc="best")
            figures.append(data_uri(figure))
    return figures


def shares_chart(classes: Sequence[str], home: Sequence[float], shifted: Sequence[float], names: tuple[str, str]) -> str:
    """Draw class shares of both sets, a row a class."""
    with mpl.rc_context(STYLE):
        figure, [axes] = blank(9.4, 0.9 + 0.36 * len(classes))
        places = np.arange(len(classes))
        axes.barh(places - 0.18, home, 0.34, color=HOME, label=short(names[0], 30))
        axes.barh(places + 0.18, shifted, 0.34, color=SHIFTED, label=short(names[1], 30))
        axes.set_yticks(places, [short(name, 34) for name in classes])
        axes.invert_yaxis()
        axes.set_xlabel("share of the images")
        axes.grid(visible=False, axis="y")
        axes.legend(loc="best")
        return data_uri(figure)


def effects_chart(rows: Sequence[tuple[str, float, bool]], detectable: float) -> str:
    """Draw how far each statistic moved, in standard deviations: (name, Cohen's d, shown for sure); within the band nothing would surely be found."""
    with mpl.rc_context(STYLE):
        figure, [axes] = blank(9.4, 0.75 + 0.27 * len(rows))
        axes.axvspan(-detectable, detectable, color=MUTED, alpha=0.12, lw=0)
        axes.axvline(0, color=MUTED, lw=0.8)
        for place, (_, effect, sure) in enumerate(rows):
            colour = SHIFTED if sure else MUTED
            axes.plot([0, effect], [place, place], color=colour, lw=2, alpha=0.5)
            axes.plot([effect], [place], "o", color=colour, ms=5.5)
        axes.set_yticks(range(len(rows)), [name for name, _, _ in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlabel("standard deviations from home (grey band: what so many images need not have shown)")
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        return data_uri(figure)
