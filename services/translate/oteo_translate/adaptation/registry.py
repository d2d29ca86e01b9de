"""Every adaptation, imported so that `ADAPTATIONS` has it."""

from __future__ import annotations

from oteo_translate.adaptation import adabn, bbse, tent
from oteo_translate.adaptation.base import ADAPTATIONS

__all__ = ["ADAPTATIONS", "adabn", "bbse", "tent"]
