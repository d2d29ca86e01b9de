"""The page's figures, as SVG data URIs.

Only matplotlib's objects are used (no pyplot), so that nothing of one figure stays behind for the next, and no display is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from oteo_augment.auditing.data import AuditData
from oteo_core.reporting.drawing import INK, MUTED, STYLE, blank, data_uri

PARTS = {"train": "#0b6e99", "validation": "#d1662b", "test": "#3d8b4f", "": "#5f6b73"}
_MOST_CLASSES = 30
_MOST_POINTS = 4000
_STYLE: dict[Any, Any] = STYLE | {"legend.frameon": False}


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure, (axes,) = blank(width, height)
    return figure, axes


def balance_chart(parts: Sequence[str], classes: dict[str, list[int]]) -> str:
    """Draw samples of each class, by part; at most the 30 largest classes."""
    names = sorted(classes, key=lambda name: -sum(classes[name]))[:_MOST_CLASSES][::-1]
    if not names:
        return ""
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(6.2, 0.9 + 0.32 * len(names))
        left = np.zeros(len(names))
        for place, part in enumerate(parts):
            counts = np.array([classes[name][place] for name in names], float)
            axes.barh(range(len(names)), counts, left=left, height=0.68, color=PARTS.get(part, MUTED), label=part or "no part")
            left += counts
        for row, total in enumerate(left):
            axes.annotate(f"{int(total):,}", (total, row), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8, color=INK)
        axes.set_yticks(range(len(names)), [name if len(name) <= 28 else name[:27] + "…" for name in names])
        axes.set_xlim(0, max(1.0, float(left.max()) * 1.12))
        axes.set_xlabel("samples")
        axes.grid(visible=False, axis="y")
        # Beside the bars: inside it would hide some.
        figure.legend(loc="outside right upper")
        return data_uri(figure)


def size_chart(data: AuditData) -> str:
    """Draw widths and heights, a dot for each size, its area the number of images."""
    rows = [data.measured[index] for index in data.readable]
    if not rows:
        return ""
    sizes, counts = np.unique(np.array([(row.width, row.height) for row in rows]), axis=0, return_counts=True)
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(4.3, 3.5)
        area = 14 + 160 * np.sqrt(counts / counts.max())
        axes.scatter(sizes[:, 0], sizes[:, 1], s=area, color=PARTS["train"], alpha=0.45, linewidths=0)
        top = float(sizes.max()) * 1.12
        axes.plot([0, top], [0, top], color=MUTED, lw=0.8, ls=(0, (4, 3)))
        axes.set_xlim(0, top)
        axes.set_ylim(0, top)
        axes.set_aspect("equal")
        axes.set_xlabel("width, pixels")
        axes.set_ylabel("height, pixels")
        return data_uri(figure)


def brightness_chart(data: AuditData) -> str:
    """Draw each image's mean against its standard deviation, as shares of its type's range, coloured by part."""
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(4.3, 3.5)
        readable = data.readable
        readable = readable[:: max(1, len(readable) // _MOST_POINTS)]
        for part, colour in PARTS.items():
            rows = [data.measured[i] for i in readable if data.samples[i].split == part]
            if rows:
                means, spreads = ([float(np.mean(getattr(row, name)[:3])) / row.full for row in rows] for name in ("mean", "std"))
                axes.scatter(means, spreads, s=9, color=colour, alpha=0.55, linewidths=0, label=part or "no part")
        if not readable:
            return ""
        axes.set_xlabel("mean brightness, share of the range")
        axes.set_ylabel("contrast (standard deviation)")
        axes.legend(loc="best", markerscale=2)
        return data_uri(figure)


def channel_chart(figures: dict[str, Any]) -> str:
    """Draw mean and standard deviation of each channel."""
    means, spreads = figures.get("mean", []), figures.get("std", [])
    if not 0 < len(means) <= 12:
        return ""
    names = ["red", "green", "blue", "alpha"][: len(means)] if len(means) in (3, 4) else [f"channel {i + 1}" for i in range(len(means))]
    colours = ["#b03a3a", "#3d8b4f", "#3a62b0", MUTED] if len(means) in (3, 4) else [PARTS["train"]] * len(means)
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(4.3, 0.9 + 0.34 * len(means))
        axes.barh(range(len(means)), means, xerr=spreads, height=0.6, color=colours[: len(means)], ecolor=INK, capsize=3, alpha=0.85)
        axes.set_yticks(range(len(means)), names)
        axes.invert_yaxis()
        axes.set_xlim(left=0)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("mean, standard deviation (share of the range)")
        return data_uri(figure)
