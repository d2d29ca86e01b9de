"""Where what is exported ends up: folders, archives and stores of objects, written beside the place and given their final name at the end."""

from __future__ import annotations

from oteo_core.exports.destinations import EXPORTS, Destination, Memory
from oteo_core.exports.destinations import parse as parse_destination
from oteo_core.exports.kinds import archive_kind
from oteo_core.exports.sinks import FolderSink, Sink, StoreSink, TarSink

__all__ = [
    "EXPORTS",
    "Destination",
    "FolderSink",
    "Memory",
    "Sink",
    "StoreSink",
    "TarSink",
    "archive_kind",
    "parse_destination",
]
