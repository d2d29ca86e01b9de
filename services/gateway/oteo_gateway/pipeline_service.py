"""``PipelineService``: starts pipelines; their work is a job over the public API."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import grpc
from google.longrunning import operations_pb2

from oteo_core.errors import AlreadyExists, InvalidArgument, NotFound
from oteo_core.operations import OperationManager
from oteo_core.packages import ModelPackage
from oteo_gateway.pipeline.run import planned_steps
from oteo_protos.gateway.v1 import pipeline_pb2, pipeline_pb2_grpc


class PipelineService(pipeline_pb2_grpc.PipelineServiceServicer):
    """Pipelines over gRPC. The handler blocks; the server runs it in a thread.

    Parameters
    ----------
    operations
        The gateway's operations.
    read_package
        Gives a model's package by its id; raises NotFound.
    """

    def __init__(self, operations: OperationManager, read_package: Callable[[str], ModelPackage]) -> None:
        self._operations = operations
        self._read_package = read_package

    def RunPipeline(self, request: pipeline_pb2.RunPipelineRequest, context: grpc.ServicerContext) -> operations_pb2.Operation:
        """Start a pipeline."""
        if request.evaluate and request.skip_deployment:
            raise InvalidArgument(
                "evaluate measures through the deployment: leave skip_deployment false, or evaluate false.",
                reason="NOTHING_TO_EVALUATE",
                field="evaluate",
            )
        metadata = pipeline_pb2.RunPipelineMetadata(steps=[pipeline_pb2.PipelineStep(step=name) for name in planned_steps(request)])
        model_id = request.train.model_id or request.pipeline_id
        request_id = request.request_id or str(uuid.uuid4())
        if model_id and self._operations.find_request("RunPipeline", request_id) is None and self._exists(model_id):
            # Found out now, and not after the import and the training's queue.
            raise AlreadyExists(
                f"There is a model models/{model_id} already; choose another pipeline_id or delete it.",
                reason="MODEL_EXISTS",
                field="pipeline_id",
            )
        return self._operations.start(
            "RunPipeline", request, metadata=metadata, request_id=request_id, resource=f"pipelines/{model_id}" if model_id else ""
        )

    def _exists(self, model_id: str) -> bool:
        try:
            self._read_package(model_id)
        except NotFound:
            return False
        return True
