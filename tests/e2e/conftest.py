"""One stack and one trained model for all tests of the whole."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from gateway_calls import Calls

from oteo_core.operations.model import unpack
from oteo_core.sampledata import GROUP_PATTERN, DrawnSet, draw_cells
from oteo_protos.augment.v1 import dataset_pb2
from oteo_protos.gateway.v1 import pipeline_pb2

if TYPE_CHECKING:
    from oteo_local.stack import Stack

BUDGET_SECONDS = int(os.environ.get("OTEO_TEST_BUDGET", "90"))
"""Time for the one training, seconds; more for a machine that is busy with other things."""

CROWDED = 2.5
"""Load of a processor from which a budget of seconds cannot be held to the tenth."""


@pytest.fixture(scope="session")
def calls(stack: Stack) -> Iterator[Calls]:
    """Calls to the stack's gateway."""
    calls = Calls(stack.endpoints["gateway"], stack.token)
    yield calls
    calls.close()


@dataclass
class Served:
    """What one run of the pipeline made of a folder of drawn cells."""

    drawn: DrawnSet
    response: pipeline_pb2.RunPipelineResponse
    metadata: pipeline_pb2.RunPipelineMetadata
    seconds: float
    budget: float
    crowded: bool
    """Whether others kept the processors busy meanwhile, beyond what the suite itself does."""


@pytest.fixture(scope="session")
def served(calls: Calls, tmp_path_factory: pytest.TempPathFactory) -> Served:
    """A model that was trained on drawn cells and is deployed; made once, by one call."""
    drawn = draw_cells(tmp_path_factory.mktemp("cells"), count=144, size=96)
    name = f"cells-{uuid.uuid4().hex[:6]}"
    request = pipeline_pb2.RunPipelineRequest(
        pipeline_id=name, budget={"seconds": BUDGET_SECONDS}, evaluate=True, audit=dataset_pb2.AuditDatasetRequest()
    )
    source = dataset_pb2.ImportDatasetRequest(
        source_uri=str(drawn.folder), dataset_id=name, display_name="Drawn cells", split={"group_pattern": GROUP_PATTERN}
    )
    getattr(request, "import").CopyFrom(source)
    request.request_id = str(uuid.uuid4())
    began = time.monotonic()
    operation = calls.wait(calls.pipelines.RunPipeline(request), seconds=BUDGET_SECONDS)
    response: Any = calls.result(operation)
    crowded = os.getloadavg()[0] > CROWDED * (os.cpu_count() or 1)
    return Served(drawn, response, unpack(operation.metadata), time.monotonic() - began, BUDGET_SECONDS, crowded)
