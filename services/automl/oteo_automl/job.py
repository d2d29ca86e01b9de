"""The jobs of automl: ``python -m oteo_automl.job OPERATION ATTEMPT``."""

from __future__ import annotations

import os
from typing import Any

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

from oteo_automl.combine_job import COMBINE
from oteo_automl.evaluate_job import EVALUATE
from oteo_automl.export_job import EXPORT
from oteo_automl.settings import AutoMLSettings
from oteo_automl.train_job import TRAIN
from oteo_core.jobs import JobHandler, run_job

HANDLERS: dict[str, JobHandler[Any, Any]] = {
    "TrainModel": TRAIN,
    "ExportModel": EXPORT,
    "EvaluateModel": EVALUATE,
    "CombinePredictions": COMBINE,
}

if __name__ == "__main__":
    run_job(AutoMLSettings, HANDLERS)
