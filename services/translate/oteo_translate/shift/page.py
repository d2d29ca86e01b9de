"""A measurement as one HTML page that loads nothing from anywhere."""

from __future__ import annotations

from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from oteo_core.reporting.pictures import thumbnail
from oteo_core.reporting.style import page_style
from oteo_translate.reading import Reading
from oteo_translate.shift import charts, words
from oteo_translate.shift.study import Study

_MOST_PANELS = 6
_FEWEST_PANELS = 3


def write_page(study: Study, *, operation: str, when: str) -> bytes:
    """Write the page, UTF-8.

    Parameters
    ----------
    study
        What was measured.
    operation
        ``operations/{id}``.
    when
        Date and time, for people.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("oteo_translate.shift", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    made = environment.get_template("shift.html.j2").render(style=Markup(page_style()), operation=operation, when=when, **_context(study))
    return made.encode()


def _context(study: Study) -> dict[str, Any]:
    shift = study.shift
    channels = study.policy.channels
    names = (study.home_name, study.shifted_name)
    moved = words.moved_statistics(shift)
    shown = moved[:_MOST_PANELS] if moved else list(shift.statistics[:_FEWEST_PANELS])
    columns = {name: place for place, name in enumerate(study.statistics.columns)}
    panels = [
        (
            words.statistic_words(one.name, channels),
            study.statistics.home[:, columns[one.name]],
            study.statistics.shifted[:, columns[one.name]],
        )
        for one in shown
    ]
    prevalence = shift.prevalence
    return {
        "s": study,
        "verdict": words.verdict(study),
        "because": words.because(study),
        "loss": words.loss_words(study),
        "advice": words.advice(study),
        "tiles": _tiles(study),
        "effects": charts.effects_chart(
            [(words.statistic_words(one.name, channels), one.effect, one.p_value <= shift.alpha) for one in shift.statistics],
            shift.detectable_difference,
        ),
        "histograms": charts.histograms(panels, names),
        "histogram_words": (
            f"The {len(panels)} statistics that moved most."
            if moved
            else "No statistic moved for sure; these differ most, as some always do."
        ),
        "shares": charts.shares_chart(prevalence.classes, prevalence.home, prevalence.shifted, names) if prevalence is not None else "",
        "shares_caption": (
            "" if prevalence is None else "By annotations." if prevalence.source == "labels" else "Estimated from the model's answers."
        ),
        "extremes": [
            {
                "picture": _picture(study.shifted, one.row),
                "text": f"distance {one.distance:.1f}; at most {100 * one.p_value:.0f} % of home's images lie as far out",
                "file": study.shifted.samples[one.row].source_path or study.shifted.domain.ids[one.row],
            }
            for one in shift.extremes
        ],
        "typical": [
            {"picture": _picture(study.home, row), "file": study.home.samples[row].source_path or study.home.domain.ids[row]}
            for row in shift.typical
        ],
        "extreme_words": (
            "Ordered by how surely a classifier that did not learn from them takes them for shifted, and by distance."
            if shift.kind != "none"
            else "Without a shift, these are the outliers that every set has."
        )
        + " Distances are root mean squares over all features, in home's standard deviations.",
        "tests": [
            {
                "name": words.TESTS[test.test][0] + (f" ({words.statistic_words(test.where, channels)})" if test.where else ""),
                "feature": words.FEATURES[test.feature],
                "effect": f"{test.effect:.3f}",
                "detectable": f"{test.detectable:.3f}",
                "p": _p(test.p_value),
                "raw": _p(test.raw_p),
                "rings": test.p_value <= shift.alpha,
                "meaning": words.TESTS[test.test][1],
            }
            for test in shift.tests
        ],
        "could_have_seen": words.could_have_seen(shift),
        "alpha": f"{100 * shift.alpha:g} %",
        "notes": study.notes,
    }


def _tiles(study: Study) -> list[dict[str, str]]:
    shift, loss = study.shift, study.loss
    best = max((test for test in shift.tests if test.test == "c2st"), key=lambda test: test.effect)
    tiles = [
        {
            "name": "kind of shift",
            "value": "looks and shares" if shift.kind == "both" else shift.kind,
            "span": f"p {_p(shift.p_value)}, corrected",
        },
        {"name": "images", "value": f"{shift.images[1]} / {shift.images[0]}", "span": f"in {shift.groups[1]} and {shift.groups[0]} groups"},
        {"name": "told apart", "value": f"{100 * best.accuracy:.0f} %", "span": f"AUROC {best.effect:.2f}; chance: 50 %"},
    ]
    if loss is not None and loss.measured is not None:
        # What was measured needs no guess, and the guess stands below it.
        expected = f"{100 * loss.expected.value:.1f} were expected; at home {loss.home:.3f}"
        tiles.append({"name": f"loss of {loss.metric}, measured", "value": f"{100 * loss.measured:.1f} points", "span": expected})
    elif loss is not None:
        tiles.append(
            {
                "name": f"expected loss of {loss.metric}",
                "value": f"{100 * loss.expected.value:.1f} points",
                "span": f"{100 * loss.expected.lower:.1f} to {100 * loss.expected.upper:.1f}; at home {loss.home:.3f}",
            }
        )
    return tiles


def _picture(reading: Reading, row: int) -> str:
    return thumbnail(np.asarray(reading.domain.images[row]))


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else "< 0.001"
