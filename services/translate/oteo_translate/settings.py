"""Settings of translate."""

from __future__ import annotations

from pydantic import Field, model_validator

from oteo_core.settings import CoreSettings


class TranslateSettings(CoreSettings):
    """What translate reads from ``OTEO_*`` environment variables beside what every service reads."""

    stream_threads: int = Field(default=2, ge=1, le=256, description="Images of TranslateImages that are translated at a time.")

    @model_validator(mode="after")
    def _listen(self) -> TranslateSettings:
        self.__dict__["listen"] = self.listen or self.translate_address
        return self
