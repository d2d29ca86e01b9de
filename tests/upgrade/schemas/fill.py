"""Fill a database through the stores of whatever release is on PYTHONPATH: ``python fill.py DATABASE_URL``.

Run once for each release whose tables differ, with that release's code (`README.md`); what it leaves is dumped and kept, and every later release must raise it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

import numpy as np

from oteo_core.errors import Internal
from oteo_core.operations import OperationStore
from oteo_core.operations.model import State, pack
from oteo_core.operations.store import NewOperation
from oteo_gateway.deployments import records
from oteo_gateway.deployments.store import DeploymentStore
from oteo_protos.augment.v1 import dataset_pb2
from oteo_protos.automl.v1 import automl_pb2
from oteo_protos.gateway.v1 import deployment_pb2
from oteo_protos.translate.v1 import translate_pb2

MADE = datetime(2026, 1, 1, tzinfo=UTC)
DIGEST = "d" * 64
REQUEST = "00000000-0000-4000-8000-{:012d}"
SEVERAL = "shadow" in {field.name for field in fields(records.ModelPart)}
"""Whether a deployment has several models in this release."""


def there(module: str) -> bool:
    """Say whether this release has a module."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def wanted() -> deployment_pb2.CreateDeploymentRequest:
    """Give the request that made the deployment `colours`."""
    models = [deployment_pb2.DeployedModel(model="models/colours", alias="champion")]
    if SEVERAL:
        models.append(deployment_pb2.DeployedModel(model="models/pale", alias="next", shadow=True))
    deployment = deployment_pb2.Deployment(display_name="Farben", models=models, labels={"ward": "7"})
    return deployment_pb2.CreateDeploymentRequest(deployment_id="colours", deployment=deployment, request_id=REQUEST.format(4))


def fill_operations(url: str) -> None:
    """Operations of every service: one that succeeded, one that failed, one that was cancelled, one that waits."""
    store = OperationStore(url)

    def add(number: int, service: str, method: str, request: Any, metadata: Any, resource: str, *, external: bool = False) -> str:
        data = request.SerializeToString(deterministic=True)
        new = NewOperation(
            id=f"{service}-{number:020d}",
            service=service,
            method=method,
            caller="token:radiology",
            request_id=REQUEST.format(number),
            request_digest=hashlib.sha256(data).hexdigest(),
            request=data,
            resource=resource,
            external=external,
            metadata=pack(metadata),
            state=State.RUNNING if external else State.QUEUED,
        )
        return store.insert(new)[0].id

    imported = add(
        1,
        "augment",
        "ImportDataset",
        dataset_pb2.ImportDatasetRequest(source_uri="/images", dataset_id="cells", request_id=REQUEST.format(1)),
        dataset_pb2.ImportDatasetMetadata(),
        "datasets/cells",
    )
    response = pack(dataset_pb2.ImportDatasetResponse(dataset=dataset_pb2.Dataset(name="datasets/cells")))
    store.change(imported, state=State.SUCCEEDED, attempt=1, submitted=True, response=response)
    trained = add(
        2,
        "automl",
        "TrainModel",
        automl_pb2.TrainModelRequest(dataset="datasets/cells", model_id="bad"),
        automl_pb2.TrainModelMetadata(),
        "models/bad",
    )
    error = Internal("the job failed 5 times", reason="JOB_LOST").to_status().SerializeToString()
    store.change(trained, state=State.FAILED, attempt=5, submitted=True, error=error)
    measured = add(
        3, "translate", "MeasureShift", translate_pb2.MeasureShiftRequest(), translate_pb2.MeasureShiftMetadata(), "shifts/cells"
    )
    store.cancel(measured, "nobody", 0.0)
    store.change(measured, state=State.CANCELLED)
    # It goes on after the upgrade: ended by the gateway once the deployment that it made answers.
    add(
        4,
        "gateway",
        "CreateDeployment",
        wanted(),
        deployment_pb2.DeploymentMetadata(deployment="deployments/colours"),
        "deployments/colours",
        external=True,
    )
    store.close()


def fill_deployments(url: str) -> None:
    """One deployment that served on replicas that are gone, and one that failed; what requests did; a lease."""
    store = DeploymentStore(url)
    part = records.ModelPart("colours", "champion")
    if SEVERAL:
        shadow = records.ModelPart("pale", "next", 0, True)
        serving = records.Serving((records.ServingModel(records.ModelPart("colours"), DIGEST),), 1)
        replica: Any = records.Replica("old:8001", True, "", ("colours",))
        models: Any = (part, shadow)
    else:
        serving = records.Serving("colours", DIGEST, 1)
        replica = records.Replica("old:8001", True, "", True)
        models = (part,)
    colours = records.Deployment(
        id="colours",
        uid="uid-colours",
        display_name="Farben",
        models=models,
        create_time=MADE,
        update_time=MADE,
        labels={"ward": "7"},
    )
    bare = wanted()
    bare.ClearField("request_id")
    fingerprint = hashlib.sha256(bare.SerializeToString(deterministic=True)).hexdigest()
    store.create(colours, request_id=REQUEST.format(4), fingerprint=fingerprint)
    store.set_operation("colours", 1, "operations/gateway-00000000000000000004")
    store.set_status(colours.with_status((replica,), serving, ("", "")))
    broken = records.Deployment(
        id="broken", uid="uid-broken", display_name="", models=(records.ModelPart("bad"),), create_time=MADE, update_time=MADE
    )
    store.create(broken)
    store.set_status(broken.with_status((), None, ("MODEL_LOAD_FAILED", "no graph")))
    store.lease("reconciler", "a-gateway-of-then", 0.0)
    if SEVERAL:
        from oteo_gateway.deployments.shadows import ComparisonStore
        from oteo_gateway.prediction.agreement import Sums

        sums = Sums()
        sums.compared(1.0, 2.0)
        sums.missed = 3
        ComparisonStore(store.engine).add({("uid-colours", serving.mark, "pale"): sums})
    store.close()


def fill_quotas(url: str) -> None:
    """What a caller used."""
    from oteo_gateway.access.quota_store import QuotaStore

    store = QuotaStore(url)
    store.add("2026-01-01", {"token:radiology": 41})
    store.close()


def fill_watches(url: str) -> None:
    """A batch of what was seen, and how the watch stands."""
    from oteo_gateway.watching.collector import Batch, Watched
    from oteo_gateway.watching.records import WatchState
    from oteo_gateway.watching.store import WatchStore

    store = WatchStore(url)
    watched = Watched("uid-colours", "mark", "colours")
    store.add({watched: Batch(np.arange(12, dtype=np.float32).reshape(3, 4), np.eye(3, dtype=bool))})
    store.keep(watched, WatchState(images=3, window=3, last=1))
    store.close()


def fill_corrections(url: str) -> None:
    """What a reader said."""
    from oteo_gateway.feedback.records import CorrectionRecord
    from oteo_gateway.feedback.store import CorrectionStore

    store = CorrectionStore(url)
    record = CorrectionRecord("c-1", "colours", "uid-colours", "colours", "e" * 64, "a" * 64, b"", 0.5, "", MADE.timestamp())
    store.add(record, REQUEST.format(5), "f" * 64)
    store.close()


class _Log:
    """In the place of the audit log, whose table alone is wanted."""

    def append(self, _event: Any) -> int:
        return 1

    def sync(self, _number: int) -> None:
        return


def fill_ends(url: str, before: bool) -> None:
    """Operations whose end was written into the audit log: all that end after the table was made."""
    from oteo_gateway.auditing import operation_ends

    operation_ends.create_tables(url)
    if not before:
        operation_ends.OperationEnds(url, _Log(), lambda: True, lambda _: None, period=1.0).look()  # type: ignore[arg-type, return-value]


def main(url: str) -> None:
    """Fill everything that this release has."""
    audited = there("oteo_gateway.auditing.operation_ends")
    if audited:
        fill_ends(url, before=True)
    fill_operations(url)
    fill_deployments(url)
    if audited:
        fill_ends(url, before=False)
    if there("oteo_gateway.access.quota_store"):
        fill_quotas(url)
    if there("oteo_gateway.watching.store"):
        fill_watches(url)
    if there("oteo_gateway.feedback.store"):
        fill_corrections(url)


if __name__ == "__main__":
    main(sys.argv[1])
