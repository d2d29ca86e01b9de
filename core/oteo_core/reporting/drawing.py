"""What figures of reports are drawn with, as SVG data URIs.

Only matplotlib's objects are used (no pyplot), so that nothing of one figure stays behind for the next, and no display is needed.
"""

from __future__ import annotations

import base64
import io
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK = "#1f2933"
MUTED = "#7b8794"
GRID = "#e4e7eb"
PALETTE = ("#0b6e99", "#d1662b", "#3d8b4f", "#8a4f9e", "#b8860b", "#4a5bbf", "#b03a5b", "#5f6b73")
"""Colours of classes and trials; told apart with the common colour blindnesses, and by brightness in print."""

STYLE: dict[Any, Any] = {
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


def blank(width: float, height: float, columns: int = 1) -> tuple[Figure, list[Axes]]:
    """Make an empty figure of so many inches with axes side by side."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(1, columns, squeeze=False)[0]
    return figure, list(axes)


def data_uri(figure: Figure) -> str:
    """Give a figure as an SVG data URI; the same figure always gives the same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()


def short(name: str, limit: int = 18) -> str:
    """Cut a long name off."""
    return name if len(name) <= limit else name[: limit - 1] + "…"


def unit_square(axes: Axes) -> None:
    """Give axes 0 to 1 both ways, equally long."""
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.03)
    axes.set_aspect("equal")
