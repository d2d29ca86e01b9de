"""Figures of a translator's page, as SVG data URIs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib as mpl
from matplotlib.ticker import MaxNLocator

from oteo_core.reporting.drawing import MUTED, PALETTE, STYLE, blank, data_uri, short
from oteo_translate.ladder.result import LadderResult

STEP = "step"
"""Key of a history's steps; all others are losses."""

_MOST_BARS = 16
_A_ROW = 3
_LEAST_POINTS = 2


def gains_chart(result: LadderResult) -> str:
    """Draw what each way gained over doing nothing, with its interval."""
    shown = [one for one in result.evidence if one.gain is not None][:_MOST_BARS]
    with mpl.rc_context(STYLE):
        figure, (axis,) = blank(8.4, 0.9 + 0.26 * max(1, len(shown)))
        for place, one in enumerate(reversed(shown)):
            gain = one.gain
            if gain is None:
                continue
            colour = PALETTE[0] if one.accepted else MUTED
            low, high = gain.lower if gain.lower is not None else gain.value, gain.upper if gain.upper is not None else gain.value
            axis.plot([low, high], [place, place], color=colour, lw=1.6)
            axis.plot([gain.value], [place], "o", color=colour, ms=4)
        axis.axvline(0.0, color=MUTED, lw=0.8)
        axis.set_yticks(range(len(shown)), [short(one.candidate.label, 40) for one in reversed(shown)], fontsize=8)
        axis.set_xlabel("gain over doing nothing")
        return data_uri(figure)


def loss_curves(history: Mapping[str, Sequence[float]]) -> list[str]:
    """Draw each loss of a training by its steps, three side by side: losses have scales of their own.

    Parameters
    ----------
    history
        ``"step"`` and the losses by name, of equal length, as an unpaired translation keeps them.

    Returns
    -------
    list of str
        Empty where there are fewer than two points: there is no curve.
    """
    steps = list(history.get(STEP, ()))
    names = [name for name in history if name != STEP]
    if len(steps) < _LEAST_POINTS:
        return []
    figures = []
    with mpl.rc_context(STYLE):
        for start in range(0, len(names), _A_ROW):
            part = names[start : start + _A_ROW]
            figure, axes = blank(9.4, 2.3, _A_ROW)
            for axis, name in zip(axes, part, strict=False):
                axis.plot(steps, list(history[name]), color=PALETTE[0], lw=1.4)
                axis.set_title(f"{name} loss", fontsize=9)
                axis.set_xlabel("step")
                axis.xaxis.set_major_locator(MaxNLocator(4, integer=True))
                axis.yaxis.set_major_locator(MaxNLocator(4))
            for axis in axes[len(part) :]:
                axis.set_visible(False)
            figures.append(data_uri(figure))
    return figures
