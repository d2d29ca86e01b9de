"""From the report's data to the HTML page and the Markdown card."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from oteo_automl.report import page_classification, page_dense, page_labels, sections, words
from oteo_automl.report.data import (
    ClassificationPart,
    DetectionPart,
    InstancePart,
    MultiLabelPart,
    ReportData,
    SemanticPart,
)
from oteo_core.evaluation.bootstrap import Floats, Ints
from oteo_core.evaluation.conformal import prediction_sets
from oteo_core.reporting.style import page_style

_TEMPLATES = {
    ClassificationPart: ("classification", page_classification.context),
    MultiLabelPart: ("multilabel", page_labels.context),
    DetectionPart: ("detection", page_dense.context),
    SemanticPart: ("semantic", page_dense.context),
    InstancePart: ("instances", page_dense.context),
}


def environment() -> jinja2.Environment:
    """Make the template environment: HTML is escaped, an unknown name is an error."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("oteo_automl.report", "."),
        autoescape=jinja2.select_autoescape(["html", "html.j2"], default=False),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters["percent"] = words.percent
    made.filters["duration"] = words.duration
    made.filters["listing"] = words.listing
    made.filters["md"] = _markdown
    made.filters["figure_name"] = words.column
    return made


def _markdown(text: object) -> str:
    """Escape what would end a table's cell or begin HTML or a link."""
    out = str(text).replace("\n", " ")
    for character in "\\|<>*_[]`":
        out = out.replace(character, f"\\{character}")
    return out


def write_html(data: ReportData) -> bytes:
    """Write the page: one file, UTF-8, that loads nothing from anywhere."""
    kind, _ = _TEMPLATES[type(data.part)]
    style = Markup(page_style())
    return environment().get_template(f"{kind}.html.j2").render(style=style, **_context(data, charts=True)).encode()


def write_card(data: ReportData) -> bytes:
    """Write the model card, Markdown, UTF-8 (Mitchell et al., "Model cards for model reporting", FAT* 2019)."""
    return environment().get_template("card.md.j2").render(**_context(data, charts=False)).encode()


def _context(data: ReportData, *, charts: bool) -> dict[str, Any]:
    kind, of_task = _TEMPLATES[type(data.part)]
    common = sections.context(data, charts=charts)
    own = of_task(data, charts=charts)
    drawn = {**common.pop("charts"), **own.pop("charts")}
    merged = {"kind": kind, "points": [], **common, **own, "charts": drawn}
    merged["sections"] = sections.navigation(data, merged)
    return merged


def write_predictions(
    ids: Sequence[str],
    sources: Sequence[str],
    groups: Sequence[str],
    labels: Ints,
    probabilities: Floats,
    classes: Sequence[str],
    quantile: float | None,
    split: str = "test",
) -> bytes:
    """Write every prediction as CSV: a row for each sample, a column for each class's probability.

    Parameters
    ----------
    ids, sources, groups
        Of the samples, N each.
    labels, probabilities
        ``(N,)`` and ``(N, K)``, calibrated.
    classes
        K names.
    quantile
        Conformal quantile; None: no sets.
    split
        Name of the part.
    """
    sets = prediction_sets(probabilities, quantile) if quantile is not None else None
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(
        ["sample", "source_path", "group", "split", "true", "predicted", "correct", "prediction_set", *(f"p_{name}" for name in classes)]
    )
    for row, (sample, source, group) in enumerate(zip(ids, sources, groups, strict=True)):
        best = int(probabilities[row].argmax())
        held = "|".join(classes[int(k)] for k in np.flatnonzero(sets[row])) if sets is not None else ""
        figures = (f"{value:.6f}" for value in probabilities[row])
        writer.writerow([sample, source, group, split, classes[int(labels[row])], classes[best], int(best == labels[row]), held, *figures])
    return buffer.getvalue().encode()
