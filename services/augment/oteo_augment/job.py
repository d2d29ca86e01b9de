"""Entry of augment's long-running work: ``python -m oteo_augment.job OPERATION_ID ATTEMPT``."""

from __future__ import annotations

from typing import Any

from oteo_augment import audit_job, augment_job, export_job, import_job
from oteo_augment.settings import AugmentSettings
from oteo_core.jobs import JobHandler, run_job

HANDLERS: dict[str, JobHandler[Any, Any]] = {**import_job.HANDLERS, **augment_job.HANDLERS, **export_job.HANDLERS, **audit_job.HANDLERS}
"""Jobs by the method that starts them."""


if __name__ == "__main__":
    run_job(AugmentSettings, HANDLERS)
