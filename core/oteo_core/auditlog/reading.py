"""Reads records for people and programs: in the order of time, those that are asked for."""

from __future__ import annotations

import fnmatch
import heapq
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oteo_core.auditlog.segments import chains_of, lines_of, segments_of

OTHERS = ("hash", "key", "mac", "prev", "v")
"""Fields that bind a record to its place and say nothing of what happened."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which records are asked for; what is empty asks for nothing in particular. Texts may have ``*`` and ``?``.

    Attributes
    ----------
    since, until
        Times as the log writes them, or their beginnings: the first that is wanted, and the first that is not any more.
    actor, action, resource, outcome, chain
        As in the record; an action may be given without its service, an outcome is a code or a reason.
    """

    since: str = ""
    until: str = ""
    actor: str = ""
    action: str = ""
    resource: str = ""
    outcome: str = ""
    chain: str = ""

    def takes(self, record: dict[str, Any]) -> bool:
        """Tell whether a record is asked for."""
        time, action = str(record.get("time", "")), str(record.get("action", ""))
        if (self.since and time < self.since) or (self.until and time >= self.until):
            return False
        pairs = (
            (self.actor, (record.get("actor", ""),)),
            (self.action, (action, action.rpartition("/")[2])),
            (self.resource, (record.get("resource", ""), *(value for value in record.get("used", {}).values() if isinstance(value, str)))),
            (self.outcome, (record.get("code", ""), record.get("reason", ""))),
            (self.chain, (record.get("chain", ""),)),
        )
        return all(not wanted or any(fnmatch.fnmatchcase(str(value), wanted) for value in values) for wanted, values in pairs)


def _chain(folder: Path) -> Iterator[dict[str, Any]]:
    for path in segments_of(folder):
        for _, line in lines_of(path):
            try:
                record = json.loads(line)
            except ValueError:
                # Whether a line is whole is for `verify` to say.
                continue
            if isinstance(record, dict):
                yield record


def records(folders: Sequence[Path], wanted: Wanted) -> Iterator[dict[str, Any]]:
    """Give records of all chains in the order of time. They are not verified."""
    chains = [_chain(folder / name) for folder in folders for name in chains_of(folder)]
    merged = heapq.merge(*chains, key=lambda record: (str(record.get("time", "")), str(record.get("chain", "")), int(record.get("seq", 0))))
    last: tuple[object, object] = (None, None)
    for record in merged:
        place = (record.get("chain"), record.get("seq"))
        # A chain may lie in two folders.
        if place != last and wanted.takes(record):
            yield record
        last = place
