"""Every method, imported so that `METHODS` has it."""

from __future__ import annotations

from oteo_translate.methods import colour, style, unpaired
from oteo_translate.methods.base import METHODS

__all__ = ["METHODS", "colour", "style", "unpaired"]
