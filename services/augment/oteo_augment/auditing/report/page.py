"""From an audit's outcome to the HTML page."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from datetime import datetime
from typing import Any

import jinja2

from oteo_augment.auditing.audit import AuditOutcome, AuditPlan
from oteo_augment.auditing.catalogue import CATALOGUE
from oteo_augment.auditing.findings import AuditFinding, plural
from oteo_augment.auditing.report import charts
from oteo_augment.auditing.report.pictures import thumbnail
from oteo_core.artifacts import ArtifactStore
from oteo_core.datasets import DatasetReader, Severity
from oteo_core.errors import OteoError
from oteo_core.images import ImageLimits

_PICTURES = 8
_SENTENCES = 12
_WEIGHT = {Severity.ERROR: "would spoil a training", Severity.WARNING: "look at it", Severity.INFO: "good to know"}


def write_page(
    store: ArtifactStore, plan: AuditPlan, outcome: AuditOutcome, fixed: dict[str, Any] | None, limits: ImageLimits,
    check: Callable[[], None] = lambda: None,
) -> bytes:  # fmt: skip
    """Write the page: one file, UTF-8, that loads nothing from anywhere.

    Parameters
    ----------
    store, plan, outcome
        Where the dataset lies, what was asked, what was found.
    fixed
        What the cleaned dataset leaves out (`Repair.to_json`); None where there is none.
    limits
        Largest images.
    check
        Raises where the work is to stop.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("oteo_augment.auditing.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    data, info = outcome.data, outcome.data.info
    balance, channels = (outcome.results[name].figures if name in outcome.results else {} for name in ("balance", "channels"))
    return (
        environment.get_template("report.html.j2")
        .render(
            name=info.display_name or plan.dataset,
            plan=plan,
            info=info,
            when=datetime.fromisoformat(plan.create_time).strftime("%d %B %Y, %H:%M") if plan.create_time else "",
            verdict=_verdict(outcome),
            tiles=_tiles(outcome),
            sections=_sections(store, plan, outcome, limits, check),
            checks=[
                {"name": c.name.replace("_", " "), "looks_for": c.looks_for, "count": len(r.findings), "note": r.note}
                for c in CATALOGUE
                if (r := outcome.results.get(c.name)) is not None
            ],
            charts={
                "balance": charts.balance_chart(balance.get("parts", []), balance.get("classes", {})),
                "sizes": charts.size_chart(data),
                "brightness": charts.brightness_chart(data),
                "channels": charts.channel_chart(channels),
            },
            fixed=fixed,
            made=[
                ("dataset", f"datasets/{plan.dataset}"),
                ("its digest", info.digest),
                ("audit", plan.operation),
                ("cleaned dataset", f"datasets/{plan.fixed_dataset}" if plan.fixed_dataset else "not asked for"),
            ],
        )
        .encode()
    )


def _verdict(outcome: AuditOutcome) -> dict[str, Any]:
    severities = Counter(finding.severity for finding in outcome.findings)
    codes = Counter((finding.severity, finding.code) for finding in outcome.findings)
    if severities[Severity.ERROR]:
        worst = [f"{count} {code}" for (severity, code), count in codes.most_common() if severity == Severity.ERROR]
        return {
            "kind": "bad",
            "headline": "Not as it is: some of it would spoil a training.",
            "sentence": f"Mend first: {', '.join(worst)}.",
        }
    if severities[Severity.WARNING]:
        worst = [f"{count} {code}" for (severity, code), count in codes.most_common() if severity == Severity.WARNING]
        return {
            "kind": "fair",
            "headline": "It can be trained on; some of it should be looked at.",
            "sentence": f"Look at: {', '.join(worst)}.",
        }
    return {"kind": "", "headline": "Nothing stands against training on it.", "sentence": "No check found an error or a doubt."}


def _tiles(outcome: AuditOutcome) -> list[dict[str, str]]:
    severities = Counter(finding.severity for finding in outcome.findings)
    data = outcome.data
    parts = Counter(sample.split or "no part" for sample in data.samples)
    return [
        {"name": "samples", "value": f"{len(data.samples):,}", "span": ", ".join(f"{part} {n:,}" for part, n in sorted(parts.items()))},
        {"name": "left out before", "value": f"{len(data.excluded):,}", "span": "by the import or an earlier audit"},
        *({"name": s.value + "s" if s != Severity.INFO else "notes", "value": f"{severities[s]:,}", "span": w} for s, w in _WEIGHT.items()),
    ]


def _sections(
    store: ArtifactStore, plan: AuditPlan, outcome: AuditOutcome, limits: ImageLimits, check: Callable[[], None]
) -> list[dict[str, Any]]:
    reader = DatasetReader(store, plan.dataset)
    by_code: defaultdict[str, list[AuditFinding]] = defaultdict(list)
    for finding in outcome.findings:
        by_code[finding.code].append(finding)
    sections = []
    for code, findings in by_code.items():
        check()
        cases: list[dict[str, str]] = []
        groups = any(finding.related for finding in findings)
        for finding in findings:
            # Of a group two are shown, so that they can be compared; of a long list of one finding as many as fit.
            share = _PICTURES if len(findings) == 1 else 2 if groups else 1
            for number, name in enumerate(finding.samples[:share]):
                if len(cases) < _PICTURES and (case := _case(reader, outcome, finding, name, number, limits)):
                    cases.append(case)
        total = len({name for finding in findings for name in finding.samples})
        sections.append(
            {
                "code": code,
                "severity": findings[0].severity.value,
                "weight": _WEIGHT[findings[0].severity],
                "count": len(findings),
                "total": plural(total, "sample") if total else "the whole dataset",
                "rows": [{"path": outcome.data.paths.get(f.sample, ""), "message": f.message} for f in findings[:_SENTENCES]],
                "more": max(0, len(findings) - _SENTENCES),
                "cases": cases,
            }
        )
    return sections


def _case(
    reader: DatasetReader, outcome: AuditOutcome, finding: AuditFinding, name: str, number: int, limits: ImageLimits
) -> dict[str, str] | None:
    index = outcome.data.by_id.get(name)
    if index is None or not outcome.data.measured[index].readable:
        return None
    sample = outcome.data.samples[index]
    try:
        picture = thumbnail(reader.image(sample, limits).pixels, finding.boxes if number == 0 else ())
    except OteoError:
        return None
    row = outcome.data.measured[index]
    labels = ", ".join(sample.labels[:3])
    return {
        "picture": picture,
        "path": sample.source_path or sample.id,
        "label": labels,
        "facts": f"{row.width} × {row.height}{f' · {sample.split}' if sample.split else ''}",
    }
