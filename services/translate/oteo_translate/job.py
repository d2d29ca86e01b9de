"""Entry of translate's long-running work: ``python -m oteo_translate.job OPERATION_ID ATTEMPT``."""

from __future__ import annotations

from typing import Any

from oteo_core.jobs import JobHandler, run_job
from oteo_translate.measure_job import MEASURE
from oteo_translate.settings import TranslateSettings
from oteo_translate.train_job import TRAIN
from oteo_translate.translate_job import HANDLERS as TRANSLATE

HANDLERS: dict[str, JobHandler[Any, Any]] = {"MeasureShift": MEASURE, "TrainTranslator": TRAIN, **TRANSLATE}

if __name__ == "__main__":
    run_job(TranslateSettings, HANDLERS)
