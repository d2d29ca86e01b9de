"""The operations that wait for deployments, and deployments as messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import structlog

from oteo_core.errors import Cancelled, NotFound, OteoError
from oteo_core.operations import OperationManager, OperationRow, State, operation_name
from oteo_core.packages.proto import variant_value
from oteo_gateway.deployments.records import Deployment, ModelPart
from oteo_gateway.deployments.store import DeploymentStore
from oteo_gateway.prediction.agreement import Sums
from oteo_protos.gateway.v1 import deployment_pb2, inference_pb2
from oteo_protos.type.v1 import report_pb2

log = structlog.get_logger(__name__)


class WaitingOperations:
    """The operations that wait for deployments, as the reconciler needs them.

    Parameters
    ----------
    operations
        The gateway's operations.
    store
        The table of deployments.
    """

    def __init__(self, operations: OperationManager, store: DeploymentStore) -> None:
        self._operations = operations
        self._store = store

    def progress(self, deployment: Deployment) -> None:
        """Show how a deployment stands."""
        ready = sum(replica.ready for replica in deployment.replicas)
        metadata = deployment_pb2.DeploymentMetadata(
            progress=report_pb2.Progress(
                stage="loading",
                fraction=ready / max(1, len(deployment.replicas)),
                message=deployment.message or f"{ready} of {len(deployment.replicas)} replicas answer",
            ),
            deployment=deployment.name,
            replicas=replica_messages(deployment),
        )
        self._operations.update(deployment.operation, metadata)

    def succeed(self, deployment: Deployment) -> None:
        """End the operation: every replica answers."""
        self._operations.succeed(deployment.operation, encode(deployment))

    def fail(self, deployment: Deployment, error: OteoError) -> None:
        """End the operation: it cannot be served."""
        self._operations.fail(deployment.operation, error)

    def withdraw(self, row: OperationRow) -> None:
        """End an operation that a caller cancelled; a deployment that it was creating and that never served is taken back."""
        deployment = self._deployment(row)
        if deployment is not None and row.method == "CreateDeployment" and deployment.serving is None:
            log.info("deployment_withdrawn", deployment=deployment.name)
            self._store.delete(deployment.id)
        elif deployment is not None:
            self._store.set_operation(deployment.id, deployment.generation, "")
        self._operations.cancelled(row.id)

    def resume(self) -> None:
        """After a start: take up what an earlier process of the gateway left between two steps."""
        for row in self._operations.unfinished():
            if not row.external:
                continue
            name = operation_name(row.id)
            if row.state is State.CANCELLING:
                self.withdraw(row)
                continue
            deployment = self._deployment(row)
            if deployment is None:
                self._operations.fail(name, Cancelled(f"{row.resource} is not there any more.", reason="SUPERSEDED"))
            elif not deployment.operation:
                # Killed between the operation's start and its note in the deployment's row.
                self._store.set_operation(deployment.id, deployment.generation, name)

    def _deployment(self, row: OperationRow) -> Deployment | None:
        """Give the deployment that an operation waits for; None where it is gone or waits for another."""
        try:
            deployment = self._store.get(row.resource.removeprefix("deployments/"))
        except NotFound:
            return None
        return deployment if deployment.operation in ("", operation_name(row.id)) else None


def encode(deployment: Deployment, sums: Mapping[str, Sums] | None = None) -> deployment_pb2.Deployment:
    """Write a deployment; `sums` is what its shadows were found to answer, by model id."""
    message = deployment_pb2.Deployment(
        name=deployment.name,
        display_name=deployment.display_name,
        uid=deployment.uid,
        models=_models(deployment.models),
        adapt=inference_pb2.AdaptMode.Name(deployment.adapt),
        translator=deployment.translator,
        state=f"STATE_{deployment.state}",
        message=deployment.message,
        replicas=replica_messages(deployment),
        etag=deployment.etag,
        generation=deployment.generation,
        labels=deployment.labels,
        comparisons=[_comparison(model_id, found) for model_id, found in sorted((sums or {}).items())],
    )
    for revision in deployment.revisions:
        made = message.revisions.add(generation=revision.generation, models=_models(revision.models))
        made.create_time.FromDatetime(revision.create_time)
    message.create_time.FromDatetime(deployment.create_time)
    message.update_time.FromDatetime(deployment.update_time)
    return message


def replica_messages(deployment: Deployment) -> list[deployment_pb2.ReplicaStatus]:
    """Write how the replicas stand."""
    return [deployment_pb2.ReplicaStatus(address=r.address, ready=r.ready, message=r.message) for r in deployment.replicas]


def _models(parts: Sequence[ModelPart]) -> list[deployment_pb2.DeployedModel]:
    return [
        deployment_pb2.DeployedModel(
            model=f"models/{part.model_id}",
            traffic_percent=part.percent,
            shadow=part.shadow,
            alias=part.alias,
            triton_model=part.unit,
            triton_version="1",
            variant=variant_value(part.variant),
        )
        for part in parts
    ]


def _comparison(model_id: str, sums: Sums) -> deployment_pb2.ShadowComparison:
    agreement, lower, upper = sums.interval()
    return deployment_pb2.ShadowComparison(
        model=f"models/{model_id}",
        image_count=sums.images,
        missed_count=sums.missed,
        agreement=agreement,
        agreement_lower=lower,
        agreement_upper=upper,
        latency_ratio=sums.median_ratio(),
    )
