"""``DeploymentService``: what should be served; the reconciler makes it so."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import grpc
from google.longrunning import operations_pb2
from google.protobuf import empty_pb2
from google.protobuf.message import Message

from oteo_core.errors import AlreadyExists, Cancelled, FailedPrecondition, InvalidArgument, NotFound
from oteo_core.operations import OperationManager
from oteo_core.operations.replays import request_digest
from oteo_core.packages import ModelPackage
from oteo_core.pagination import decode_token, encode_token, not_ours, page_size
from oteo_gateway.deployments.adaptations import Adaptations
from oteo_gateway.deployments.parts import check_alike, check_shares
from oteo_gateway.deployments.records import Deployment, ModelPart
from oteo_gateway.deployments.shadows import ComparisonStore
from oteo_gateway.deployments.store import DeploymentStore
from oteo_gateway.waiting_service import WaitingOperations, encode
from oteo_protos.gateway.v1 import deployment_pb2, deployment_pb2_grpc

_MASK = ("models", "display_name", "adapt", "translator", "labels")
_CREATE = "CreateDeployment"
_UPDATE = "UpdateDeployment"
_DELETE = "DeleteDeployment"
_ROLLBACK = "RollbackDeployment"

Context = grpc.ServicerContext


class DeploymentService(deployment_pb2_grpc.DeploymentServiceServicer):
    """Deployments over gRPC. The handlers block; the server runs them in threads.

    Parameters
    ----------
    store
        The table.
    operations
        The gateway's operations.
    waiting
        Those of them that wait for deployments.
    read_package
        Gives a model's package by its id; raises NotFound.
    adaptations
        Finds translators.
    comparisons
        What shadows were found to answer.
    wake
        Has the reconciler look at once.
    fill
        Adds to a deployment's message what is known of it beside what it asks for.
    """

    def __init__(
        self,
        store: DeploymentStore,
        operations: OperationManager,
        waiting: WaitingOperations,
        read_package: Callable[[str], ModelPackage],
        adaptations: Adaptations,
        comparisons: ComparisonStore,
        wake: Callable[[], None],
        fill: Callable[[deployment_pb2.Deployment, Deployment], deployment_pb2.Deployment] = lambda message, _: message,
    ) -> None:
        self._store = store
        self._operations = operations
        self._waiting = waiting
        self._read_package = read_package
        self._adaptations = adaptations
        self._comparisons = comparisons
        self._wake = wake
        self._fill = fill

    def CreateDeployment(self, request: deployment_pb2.CreateDeploymentRequest, context: Context) -> operations_pb2.Operation:
        """Put models into service."""
        spec = request.deployment
        models, packages = self._models(_parts(spec))
        translator = _translator(spec)
        self._check_adaptation(translator, packages)
        now = datetime.now(UTC)
        deployment = Deployment(
            id=request.deployment_id or models[0].model_id,
            uid=str(uuid.uuid4()),
            display_name=spec.display_name,
            models=models,
            create_time=now,
            update_time=now,
            adapt=spec.adapt,
            translator=translator,
            labels=dict(spec.labels),
        )
        if request.validate_only:
            return _done(encode(deployment))
        request_id = request.request_id or str(uuid.uuid4())
        fingerprint = request_digest(request, "request_id")
        if not self._replayed(_CREATE, request_id, fingerprint):
            try:
                self._store.create(deployment, request_id=request_id, fingerprint=fingerprint)
            except AlreadyExists:
                # The same call, a moment ago, in another thread or gateway?
                if not self._replayed(_CREATE, request_id, fingerprint):
                    raise
        return self._wait_for(_CREATE, request, deployment, request_id)

    def GetDeployment(self, request: deployment_pb2.GetDeploymentRequest, context: Context) -> deployment_pb2.Deployment:
        """Give one deployment."""
        return self._encoded([self._store.get(_id(request.name))])[0]

    def ListDeployments(self, request: deployment_pb2.ListDeploymentsRequest, context: Context) -> deployment_pb2.ListDeploymentsResponse:
        """Give deployments, newest first."""
        size = page_size(request.page_size)
        found = self._store.list(size + 1, before=_place(decode_token(request, request.page_token)))
        token = encode_token(request, _position(found[size - 1]) if len(found) > size else "")
        return deployment_pb2.ListDeploymentsResponse(deployments=self._encoded(found[:size]), next_page_token=token)

    def UpdateDeployment(self, request: deployment_pb2.UpdateDeploymentRequest, context: Context) -> operations_pb2.Operation:
        """Change a deployment: other models or shares, another name, translator or labels."""
        spec = request.deployment
        request_id = request.request_id or str(uuid.uuid4())
        fingerprint = request_digest(request, "request_id")
        current = self._store.get(_id(spec.name))
        if self._replayed(_UPDATE, request_id, fingerprint):
            return self._wait_for(_UPDATE, request, current, request_id)
        if spec.etag and spec.etag != current.etag:
            raise FailedPrecondition(
                f"{current.name} was changed since you read it; read it again and repeat the change.",
                reason="ETAG_MISMATCH",
                field="deployment.etag",
            )
        changed = self._changed(current, spec, list(request.update_mask.paths))
        return self._put(_UPDATE, request, current, changed, request_id, fingerprint)

    def RollbackDeployment(self, request: deployment_pb2.RollbackDeploymentRequest, context: Context) -> operations_pb2.Operation:
        """Put an earlier revision's models, shares and translator back; it is a change like any other, with a generation of its own."""
        request_id = request.request_id or str(uuid.uuid4())
        fingerprint = request_digest(request, "request_id")
        current = self._store.get(_id(request.name))
        if self._replayed(_ROLLBACK, request_id, fingerprint):
            return self._wait_for(_ROLLBACK, request, current, request_id)
        if not current.revisions:
            raise FailedPrecondition(f"{current.name} never asked for other models.", reason="NO_REVISION", field="name")
        found = [one for one in current.revisions if request.generation in (0, one.generation)]
        if not found:
            kept = ", ".join(str(one.generation) for one in current.revisions)
            raise NotFound(
                f"{current.name} has no revision {request.generation}; it has {kept}.", reason="REVISION_NOT_FOUND", field="generation"
            )
        models, _ = self._models(found[0].models)
        changed = current.asking(models=models, adapt=found[0].adapt, translator=found[0].translator, now=datetime.now(UTC))
        return self._put(_ROLLBACK, request, current, changed, request_id, fingerprint)

    def _put(
        self, method: str, request: Message, current: Deployment, changed: Deployment, request_id: str, fingerprint: str
    ) -> operations_pb2.Operation:
        """Record a change, and wait for it."""
        if not self._store.update(
            changed, expected_generation=current.generation, method=method, request_id=request_id, fingerprint=fingerprint
        ):
            raise FailedPrecondition(
                f"{current.name} is being changed by somebody else; try again.", reason="ETAG_MISMATCH", field="deployment.etag"
            )
        self._supersede(current, "another change took its place")
        return self._wait_for(method, request, changed, request_id)

    def DeleteDeployment(self, request: deployment_pb2.DeleteDeploymentRequest, context: Context) -> empty_pb2.Empty:
        """Take a deployment out of service."""
        fingerprint = request_digest(request, "request_id")
        if self._replayed(_DELETE, request.request_id, fingerprint):
            return empty_pb2.Empty()
        try:
            deployment = self._store.get(_id(request.name))
        except NotFound:
            if request.allow_missing:
                return empty_pb2.Empty()
            raise
        self._store.delete(deployment.id, request_id=request.request_id, fingerprint=fingerprint)
        self._supersede(deployment, "it was deleted")
        self._wake()
        return empty_pb2.Empty()

    def _replayed(self, method: str, request_id: str, fingerprint: str) -> bool:
        """Tell whether this very request was carried out before.

        Raises
        ------
        AlreadyExists
            ``REQUEST_ID_REUSED``: another request had this id.
        """
        earlier = self._store.replayed(method, request_id)
        if earlier is None:
            return False
        if earlier[0] != fingerprint:
            raise AlreadyExists(
                f"The request_id {request_id} was used for another {method} already; take a new one.",
                reason="REQUEST_ID_REUSED",
                field="request_id",
            )
        return True

    def _models(self, asked: Sequence[ModelPart]) -> tuple[tuple[ModelPart, ...], list[ModelPackage]]:
        """Check the models, and give them with their packages.

        Raises
        ------
        InvalidArgument
            See `oteo_gateway.deployments.parts`.
        NotFound
            ``MODEL_NOT_FOUND``.
        """
        models = check_shares(asked)
        packages = []
        for place, part in enumerate(models):
            try:
                packages.append(self._read_package(part.model_id))
            except NotFound as error:
                raise NotFound(error.message, reason="MODEL_NOT_FOUND", field=f"deployment.models[{place}].model") from error
        check_alike(packages)
        return models, packages

    def _check_adaptation(self, translator: str, packages: Sequence[ModelPackage]) -> None:
        """Refuse a translator that may not, or cannot, be put before any of the models, whether or not it is used yet.

        Raises
        ------
        NotFound, FailedPrecondition
            See `oteo_gateway.deployments.adaptations.Adaptations.named`.
        """
        if translator:
            self._adaptations.check(translator, packages)

    def _encoded(self, found: Sequence[Deployment]) -> list[deployment_pb2.Deployment]:
        sums = self._comparisons.of(found)
        return [self._fill(encode(deployment, sums.get(deployment.uid, {})), deployment) for deployment in found]

    def _changed(self, current: Deployment, spec: deployment_pb2.Deployment, paths: list[str]) -> Deployment:
        unknown = sorted(set(paths) - set(_MASK))
        if unknown:
            raise InvalidArgument(
                f"update_mask may name {', '.join(_MASK)}; not {', '.join(unknown)}.", reason="BAD_UPDATE_MASK", field="update_mask"
            )
        chosen = set(paths) or {name for name in _MASK if getattr(spec, name)}
        adapt = spec.adapt if "adapt" in chosen else current.adapt
        translator = _translator(spec) if "translator" in chosen else current.translator
        models = current.models
        if "models" in chosen:
            models, packages = self._models(_parts(spec))
            self._check_adaptation(translator, packages)
        elif chosen & {"adapt", "translator"}:
            self._check_adaptation(translator, [self._read_package(part.model_id) for part in models])
        return replace(
            current.asking(models=models, adapt=adapt, translator=translator, now=datetime.now(UTC)),
            display_name=spec.display_name if "display_name" in chosen else current.display_name,
            labels=dict(spec.labels) if "labels" in chosen else current.labels,
        )

    def _wait_for(self, method: str, request: Message, deployment: Deployment, request_id: str) -> operations_pb2.Operation:
        """Start the operation that ends when the reconciler has done its part, or give the one that a replay started before."""
        operation = self._operations.start_external(
            method,
            request,
            metadata=deployment_pb2.DeploymentMetadata(deployment=deployment.name),
            request_id=request_id,
            resource=deployment.name,
        )
        if not operation.done:
            self._store.set_operation(deployment.id, deployment.generation, operation.name)
        self._wake()
        return operation

    def _supersede(self, deployment: Deployment, why: str) -> None:
        if deployment.operation:
            self._waiting.fail(deployment, Cancelled(f"{deployment.name} is not waited for any more: {why}.", reason="SUPERSEDED"))


def _parts(spec: deployment_pb2.Deployment) -> list[ModelPart]:
    return [ModelPart(one.model.removeprefix("models/"), one.alias, one.traffic_percent, one.shadow) for one in spec.models]


def _translator(spec: deployment_pb2.Deployment) -> str:
    return f"translators/{spec.translator.removeprefix('translators/')}" if spec.translator else ""


def _id(name: str) -> str:
    return name.removeprefix("deployments/")


def _done(response: Message) -> operations_pb2.Operation:
    operation = operations_pb2.Operation(done=True)
    operation.response.Pack(response)
    return operation


def _position(last: Deployment) -> str:
    return f"{last.create_time.timestamp()!r} {last.id}"


def _place(position: str) -> tuple[float, str] | None:
    if not position:
        return None
    made, _, last = position.partition(" ")
    try:
        return float(made), last
    except ValueError:
        raise not_ours() from None
