"""Settings of augment."""

from __future__ import annotations

import os

from pydantic import Field, model_validator

from oteo_core.settings import CoreSettings


class AugmentSettings(CoreSettings):
    """What augment reads from ``OTEO_*`` environment variables, beside what every service reads."""

    max_archive_bytes: int = Field(default=1 << 40, ge=1, description="Most bytes that an archive may have once unpacked.")
    max_archive_members: int = Field(default=10_000_000, ge=1, description="Most files in an archive.")
    max_upload_bytes: int = Field(default=100 << 30, ge=1, description="Most bytes of one upload.")
    max_upload_files: int = Field(default=2_000_000, ge=1, description="Most files of one upload.")
    stream_threads: int = Field(
        default_factory=lambda: os.cpu_count() or 1, ge=1, description="Images of AugmentImages' streams that are augmented at a time."
    )
    check_seconds: float = Field(
        default=3.0,
        ge=0,
        description="Time that ImportDataset takes to look at a folder before it answers; the job does the rest, seconds.",
    )

    @model_validator(mode="after")
    def _listen(self) -> AugmentSettings:
        self.__dict__["listen"] = self.listen or self.augment_address
        return self
