"""What an audit of the dataset found, for the report: read from the artifact store, where AuditDataset leaves it."""

from __future__ import annotations

import json
from typing import Any

from oteo_automl.report.data import AuditFinding
from oteo_automl.report.findings import MEANINGS
from oteo_core.artifacts import ArtifactStore
from oteo_core.datasets import DatasetInfo
from oteo_core.errors import OteoError

_AUDITS = "audits"
_SUMMARY = "summary.json"
_ORDER = {"error": 0, "warning": 1, "info": 2}
_FORM = 1


def find_audit(store: ArtifactStore, info: DatasetInfo) -> list[AuditFinding]:
    """Give what the newest audit of this very state of a dataset found, worst first; the import's findings that it does not repeat stay.

    Empty where there was none: the report then shows the import's own counts. An audit that cannot be read is as none: a report does not fail for it.
    """
    newest: dict[str, Any] | None = None
    try:
        for name in store.children(_AUDITS):
            path = f"{_AUDITS}/{name}/{_SUMMARY}"
            if not store.is_file(path):
                continue
            summary = json.loads(store.read_bytes(path))
            if summary.get("format_version") != _FORM or summary.get("dataset_digest") != info.digest:
                continue
            if newest is None or str(summary.get("create_time", "")) > str(newest.get("create_time", "")):
                newest = summary
        if newest is None:
            return []
        found = [
            AuditFinding(str(one["code"]), str(one["severity"]), int(one["count"]), MEANINGS.get(str(one["code"]), ""))
            for one in newest["counts"]
        ]
    except (OteoError, ValueError, KeyError, TypeError):
        return []
    said = {one.code for one in found}
    found += [
        AuditFinding(one.code, str(one.severity), one.count, MEANINGS.get(one.code, "")) for one in info.findings if one.code not in said
    ]
    return sorted(found, key=lambda one: (_ORDER.get(one.severity, 3), -one.count, one.code))
