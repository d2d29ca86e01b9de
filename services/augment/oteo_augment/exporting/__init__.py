"""Giving datasets out: writers of outside formats and what they lose; where they write is `oteo_core.exports`."""

from __future__ import annotations

from oteo_augment.exporting.exporter import Exported, check_export, export_dataset
from oteo_augment.exporting.writers import WRITERS

__all__ = [
    "WRITERS",
    "Exported",
    "check_export",
    "export_dataset",
]
