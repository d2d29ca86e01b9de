"""The jobs of automl: ``python -m oteo_automl.job OPERATION ATTEMPT``."""

from __future__ import annotations

import os

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

from oteo_automl.settings import AutoMLSettings
from oteo_automl.train_job import TRAIN
from oteo_core.jobs import JobHandler, run_job
from oteo_protos.automl.v1 import automl_pb2

HANDLERS: dict[str, JobHandler[automl_pb2.TrainModelRequest, automl_pb2.TrainModelMetadata]] = {"TrainModel": TRAIN}

if __name__ == "__main__":
    run_job(AutoMLSettings, HANDLERS)
