"""Giving datasets out: writers of outside formats, what they lose, and where they write."""

from __future__ import annotations

from oteo_augment.exporting.destinations import EXPORTS, Destination, Memory
from oteo_augment.exporting.destinations import parse as parse_destination
from oteo_augment.exporting.exporter import Exported, check_export, export_dataset
from oteo_augment.exporting.sinks import FolderSink, Sink, StoreSink
from oteo_augment.exporting.writers import WRITERS

__all__ = [
    "EXPORTS",
    "WRITERS",
    "Destination",
    "Exported",
    "FolderSink",
    "Memory",
    "Sink",
    "StoreSink",
    "check_export",
    "export_dataset",
    "parse_destination",
]
