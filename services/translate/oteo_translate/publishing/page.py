"""A climb of the ladder as one HTML page that loads nothing from anywhere."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jinja2
from markupsafe import Markup

from oteo_core.packages import MetricValue
from oteo_core.packages.translators import TranslatorPackage
from oteo_core.reporting.style import page_style
from oteo_translate.ladder.result import NOTHING, WITH_LABELS, Evidence, LadderResult
from oteo_translate.measures.home import DIMENSIONS, FID, HOME_IMAGES, IMAGES, INCEPTION_FID, INCEPTION_IMAGES, INCEPTION_KID, KID
from oteo_translate.methods.base import Translation
from oteo_translate.methods.registry import METHODS
from oteo_translate.methods.unpaired.translation import UnpairedTranslation
from oteo_translate.publishing.charts import gains_chart, loss_curves

_VERDICTS = {True: "A translation is recommended", False: "Nothing is recommended"}


@dataclass(frozen=True, slots=True)
class Training:
    """How the training of a way went.

    Parameters
    ----------
    label
        The way, for people.
    history
        ``"step"`` and the losses by name, of equal length.
    notes
        What happened that a person should know: where it was taken back, and why.
    """

    label: str
    history: Mapping[str, Sequence[float]]
    notes: Sequence[str]


def trainings_of(result: LadderResult, translations: Mapping[int, Translation]) -> list[Training]:
    """Give the trainings of a climb, the best way first; `translations` by ``id`` of their evidence."""
    found = [(one.candidate.label, translations.get(id(one))) for one in result.evidence]
    return [Training(label, way.history, way.notes) for label, way in found if isinstance(way, UnpairedTranslation)]


def write_page(
    package: TranslatorPackage, result: LadderResult, sheet: bytes, notes: list[str], when: str, trainings: Sequence[Training] = ()
) -> bytes:
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
    trainings
        Of the ways that were trained, see `trainings_of`.
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
            **{name: _distance(one, name) for name in (KID, FID)},
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
        "chart": gains_chart(result),
        "has_fid": any(row[FID] for row in rows),
        "distances": _distances(nothing, result.choice),
        "inception": _by_inception(result),
        "trainings": [{"label": one.label, "curves": loss_curves(one.history), "notes": one.notes} for one in trainings],
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


def _distance(one: Evidence, name: str) -> str:
    """Give a distance with its interval, to three figures: its size depends on the network."""
    for found in one.distances:
        if found.name == name:
            span = f" ({found.lower:.3g} to {found.upper:.3g})" if found.lower is not None and found.upper is not None else ""
            return f"{found.value:.3g}{span}"
    return ""


def _distances(nothing: Evidence | None, choice: Evidence | None) -> list[str]:
    """Say how far the images are from home, as they are and with what is recommended, and what the figures stand on; empty where it was not measured."""
    if nothing is None or KID not in nothing.figures:
        return []
    figures = nothing.figures
    after = ""
    if choice is not None:
        after = (
            f", {_distance(choice, KID)} with what is recommended"
            if KID in choice.figures
            else "; what is recommended changes the model's own figures"
        )
    images, home, dimensions = (int(figures[name]) for name in (IMAGES, HOME_IMAGES, DIMENSIONS))
    told = [
        f"Kernel distance (KID) of the images to home in what the frozen model sees: {_distance(nothing, KID)} as they are{after}.",
        f"By {dimensions} figures of each of {images} shifted and {home} home images, with 95 % intervals; 0: no difference. Nothing is chosen by it, and the "
        "figures of two models do not compare.",
    ]
    if FID not in figures:
        told.append(f"The Fréchet distance (FID) is left out: it takes more images of either set than the {dimensions} figures.")
    else:
        told.append("The Fréchet distance (FID) is too large on few images: compare it within this table alone.")
    return told


def _by_inception(result: LadderResult) -> list[str]:
    """Say how far the images are from home by Inception, as they are and with what is published; empty where it was not measured."""
    measured = [one for one in result.evidence if INCEPTION_KID in one.figures]
    nothing = next((one for one in measured if one.candidate.name == NOTHING), None)
    if nothing is None:
        return []
    translated = [one for one in measured if one is not nothing]

    def words(name: str) -> str:
        after = "".join(f", {_distance(one, name)} with {one.candidate.label}" for one in translated)
        return f"{_distance(nothing, name)} as they are{after}"

    told = [
        f"By Inception-v3, a network of everyday photographs: KID of the images to home {words(INCEPTION_KID)}; "
        f"{int(nothing.figures[INCEPTION_IMAGES])} shifted images, with 95 % intervals. Nothing is chosen by it."
    ]
    if INCEPTION_FID in nothing.figures:
        told.append(f"FID of the 64 figures of its first pooling: {words(INCEPTION_FID)}; no such figure of other trainings compares.")
    else:
        told.append("FID by Inception is left out: it takes more than 64 images of either set.")
    return told
