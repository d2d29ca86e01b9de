"""A climb of the ladder as one HTML page that loads nothing from anywhere."""

from __future__ import annotations

import base64
from typing import Any

import jinja2
import matplotlib as mpl
from markupsafe import Markup

from oteo_core.packages import MetricValue
from oteo_core.packages.translators import TranslatorPackage
from oteo_core.reporting.drawing import MUTED, PALETTE, STYLE, blank, data_uri, short
from oteo_core.reporting.style import page_style
from oteo_translate.ladder.result import NOTHING, WITH_LABELS, LadderResult
from oteo_translate.methods.registry import METHODS

_MOST_BARS = 16
_VERDICTS = {True: "A translation is recommended", False: "Nothing is recommended"}


def write_page(package: TranslatorPackage, result: LadderResult, sheet: bytes, notes: list[str], when: str) -> bytes:
    """Write the page, UTF-8.

    Parameters
    ----------
    package
        The translator.
    result
        What was tried.
    sheet
        PNG of `oteo_translate.publishing.sheet.draw_sheet`.
    notes
        What to know of the figures.
    when
        Date and time, for people.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("oteo_translate.publishing", "."), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    rows = [
        {
            "name": one.candidate.label,
            "score": _text(one.score),
            "gain": _text(one.gain, signed=True),
            "structure": _text(one.structure),
            "accepted": one.accepted,
            "reason": one.reason,
            "seconds": f"{one.seconds:.1f}",
        }
        for one in result.evidence
    ]
    labels = result.criterion == WITH_LABELS
    tried = sorted({name for one in result.evidence for name in (one.candidate.method,) if name})
    sources = [(name, METHODS[name].summary) for name in tried if name in METHODS]
    nothing = next((one for one in result.evidence if one.candidate.name == NOTHING), None)
    context: dict[str, Any] = {
        "style": Markup(page_style()),
        "p": package,
        "verdict": _VERDICTS[package.accepted] if package.changes == "image" or not package.accepted else "An adapted model is recommended",
        "when": when,
        "rows": rows,
        "judged": f"{result.judged[0]} shifted images in {result.judged[1]} groups",
        "criterion": (
            f"by their annotations: {nothing.score.name if nothing and nothing.score else 'the main figure'}"
            if labels
            else "without labels: agreement of the model's answers under other views, its confidence, and the distance to home of what it sees"
        ),
        "chart": _chart(result),
        "sheet": "data:image/png;base64," + base64.b64encode(sheet).decode(),
        "sources": sources,
        "notes": notes,
    }
    return environment.get_template("translator.html.j2").render(**context).encode()


def _text(figure: MetricValue | None, *, signed: bool = False) -> str:
    if figure is None:
        return ""
    form = "+.3f" if signed else ".3f"
    if figure.lower is None or figure.upper is None:
        return f"{figure.value:{form}}"
    return f"{figure.value:{form}} ({figure.lower:{form}} to {figure.upper:{form}})"


def _chart(result: LadderResult) -> str:
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
