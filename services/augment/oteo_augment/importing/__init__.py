"""Bringing images in: sources, formats, checks, duplicates, parts."""

from __future__ import annotations

from oteo_augment.importing.importer import Hooks, ImportResult, Limits, import_dataset, inspect
from oteo_augment.importing.options import ImportOptions, SplitOptions
from oteo_augment.importing.source import Source, open_source

__all__ = ["Hooks", "ImportOptions", "ImportResult", "Limits", "Source", "SplitOptions", "import_dataset", "inspect", "open_source"]
