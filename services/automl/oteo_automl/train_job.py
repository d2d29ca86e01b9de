"""TrainModel's job: read, plan, search, finish, within the budget."""

from __future__ import annotations

from oteo_automl.dense import is_dense
from oteo_automl.publishing import already_published
from oteo_automl.train_classification import train_classification
from oteo_automl.train_dense import train_dense_task
from oteo_automl.training_job import Context, Training
from oteo_core.jobs import JobHandler
from oteo_core.packages import ModelPackage
from oteo_protos.automl.v1 import automl_pb2


def run(context: Context) -> automl_pb2.TrainModelResponse:
    """Train a model; with ``validate_only`` plan one."""
    training = Training(context)
    package: ModelPackage | None = None
    if not context.request.validate_only:
        package = already_published(context, training.model_id)
    if package is None:
        with training.timed("read the dataset"):
            reader = training.reader()
        train = train_dense_task if is_dense(reader.info.task) else train_classification
        package = train(training, reader)
    plan = context.metadata.plan
    return automl_pb2.TrainModelResponse(model=package.to_proto() if package is not None else None, plan=plan)


TRAIN = JobHandler(automl_pb2.TrainModelRequest, automl_pb2.TrainModelMetadata, run)
