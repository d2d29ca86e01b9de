"""ExportModel's job: a package in another form."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from oteo_automl.exporting.catalogue import check_form
from oteo_automl.exporting.forms import WRITERS
from oteo_automl.exporting.source import Source
from oteo_core.exports import Sink
from oteo_core.exports.delivery import deliver
from oteo_core.jobs import JobContext, JobHandler
from oteo_core.packages import read_model
from oteo_core.packages.proto import variant_name
from oteo_protos.automl.v1 import automl_pb2

Context = JobContext[automl_pb2.ExportModelRequest, automl_pb2.ExportModelMetadata]


def run(context: Context) -> automl_pb2.ExportModelResponse:
    """Write the model where the request wants it; killed and run again, it ends as one run would."""
    request = context.request
    form = automl_pb2.ModelFormat.Name(request.format).removeprefix("MODEL_FORMAT_").lower()
    variant = variant_name(request.variant)
    context.metadata.model = request.name

    def write(sink: Sink) -> bytes:
        package = read_model(context.artifacts, request.name)
        check_form(package, form, variant, tensorrt=request.tensorrt)
        context.progress(0.05, f"writing {form}")
        WRITERS[form](Source(context.artifacts, package, variant, tensorrt=request.tensorrt), sink, context.check)
        content = {
            "model": request.name,
            "digest": package.digest,
            "format": form,
            "variant": variant,
            "written": datetime.now(UTC).isoformat(),
        }
        return json.dumps(content, indent=1).encode()

    uri, _ = deliver(context, request.destination_uri, write)
    context.progress(1.0, "done", f"{request.name} as {form} is in {uri}")
    return automl_pb2.ExportModelResponse(uri=uri)


EXPORT = JobHandler(automl_pb2.ExportModelRequest, automl_pb2.ExportModelMetadata, run)
