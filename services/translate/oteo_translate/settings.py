"""Settings of translate."""

from __future__ import annotations

from pydantic import model_validator

from oteo_core.settings import CoreSettings


class TranslateSettings(CoreSettings):
    """What translate reads from ``OTEO_*`` environment variables; so far what every service reads."""

    @model_validator(mode="after")
    def _listen(self) -> TranslateSettings:
        self.__dict__["listen"] = self.listen or self.translate_address
        return self
