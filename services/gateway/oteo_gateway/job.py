"""Entry of the gateway's long-running work: ``python -m oteo_gateway.job OPERATION_ID ATTEMPT``."""

from __future__ import annotations

from oteo_core.context import CallContext, enter
from oteo_core.jobs import JobContext, JobHandler, files, run_job
from oteo_core.server import sync_channel
from oteo_gateway.pipeline.run import Pipeline
from oteo_gateway.public_api import PublicApi
from oteo_gateway.settings import GatewaySettings
from oteo_protos.gateway.v1 import pipeline_pb2

Context = JobContext[pipeline_pb2.RunPipelineRequest, pipeline_pb2.RunPipelineMetadata]


def run_pipeline(context: Context) -> pipeline_pb2.RunPipelineResponse:
    """Run a pipeline through the gateway's own address, in the name of who asked for it: its steps are that caller's operations."""
    enter(CallContext(caller=context.caller))
    with sync_channel(context.settings.gateway_address, context.settings) as channel:
        pipeline = Pipeline(
            request=context.request,
            operation_id=context.operation_id,
            api=PublicApi(channel, context.check),
            metadata=context.metadata,
            report=lambda fraction, step, message: context.progress(fraction, stage=step, message=message),
            check=context.check,
            withdrawn=lambda: _withdrawn(context),
        )
        return pipeline.run()


def _withdrawn(context: Context) -> bool:
    """Tell whether the operation was cancelled: asked to stop, or ended and its files gone already."""
    folder = files.folder(context.operation_id)
    return context.artifacts.is_file(f"{folder}/{files.CANCEL}") or not context.artifacts.is_file(f"{folder}/{files.ATTEMPT}")


HANDLERS = {"RunPipeline": JobHandler(pipeline_pb2.RunPipelineRequest, pipeline_pb2.RunPipelineMetadata, run_pipeline)}

if __name__ == "__main__":
    run_job(GatewaySettings, HANDLERS)
