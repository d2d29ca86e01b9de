"""The style of pages."""

from __future__ import annotations

import importlib.resources


def page_style() -> str:
    """Give the style sheet of pages, CSS: Oteo's own text, without anything of a user's."""
    return importlib.resources.files("oteo_core.reporting").joinpath("style.css").read_text("utf-8")
