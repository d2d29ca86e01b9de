"""``DeploymentService``: what should be served; the reconciler makes it so."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import grpc
from google.longrunning import operations_pb2
from google.protobuf import empty_pb2
from google.protobuf.message import Message

from oteo_core.errors import AlreadyExists, Cancelled, FailedPrecondition, InvalidArgument, NotFound, Unimplemented
from oteo_core.operations import OperationManager
from oteo_core.packages import ModelPackage
from oteo_gateway.deployments.records import Deployment, ModelPart
from oteo_gateway.deployments.store import DeploymentStore
from oteo_gateway.waiting_service import WaitingOperations, encode
from oteo_protos.gateway.v1 import deployment_pb2, deployment_pb2_grpc, inference_pb2

_DEFAULT_PAGE = 50
_MAX_PAGE = 1000
_MASK = ("models", "display_name", "adapt", "translator", "labels")
_CREATE = "CreateDeployment"
_UPDATE = "UpdateDeployment"
_DELETE = "DeleteDeployment"

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
        wake: Callable[[], None],
        fill: Callable[[deployment_pb2.Deployment, Deployment], deployment_pb2.Deployment] = lambda message, _: message,
    ) -> None:
        self._store = store
        self._operations = operations
        self._waiting = waiting
        self._read_package = read_package
        self._wake = wake
        self._fill = fill

    def CreateDeployment(self, request: deployment_pb2.CreateDeploymentRequest, context: Context) -> operations_pb2.Operation:
        """Put a model into service."""
        spec = request.deployment
        models = self._models(spec)
        _check_adaptation(spec)
        now = datetime.now(UTC)
        deployment = Deployment(
            id=request.deployment_id or models[0].model_id,
            uid=str(uuid.uuid4()),
            display_name=spec.display_name,
            models=models,
            create_time=now,
            update_time=now,
            adapt=spec.adapt,
            labels=dict(spec.labels),
        )
        if request.validate_only:
            return _done(encode(deployment))
        request_id = request.request_id or str(uuid.uuid4())
        fingerprint = _fingerprint(request)
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
        found = self._store.get(_id(request.name))
        return self._fill(encode(found), found)

    def ListDeployments(self, request: deployment_pb2.ListDeploymentsRequest, context: Context) -> deployment_pb2.ListDeploymentsResponse:
        """Give deployments, newest first."""
        size = min(request.page_size or _DEFAULT_PAGE, _MAX_PAGE)
        found = self._store.list(size + 1, before=_decode_token(request.page_token))
        token = _encode_token(found[size - 1]) if len(found) > size else ""
        return deployment_pb2.ListDeploymentsResponse(deployments=[self._fill(encode(d), d) for d in found[:size]], next_page_token=token)

    def UpdateDeployment(self, request: deployment_pb2.UpdateDeploymentRequest, context: Context) -> operations_pb2.Operation:
        """Change a deployment: another model, name or labels."""
        spec = request.deployment
        request_id = request.request_id or str(uuid.uuid4())
        fingerprint = _fingerprint(request)
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
        if not self._store.update(changed, expected_generation=current.generation, request_id=request_id, fingerprint=fingerprint):
            raise FailedPrecondition(
                f"{current.name} is being changed by somebody else; try again.", reason="ETAG_MISMATCH", field="deployment.etag"
            )
        self._supersede(current, "another change took its place")
        return self._wait_for(_UPDATE, request, changed, request_id)

    def DeleteDeployment(self, request: deployment_pb2.DeleteDeploymentRequest, context: Context) -> empty_pb2.Empty:
        """Take a deployment out of service."""
        fingerprint = _fingerprint(request)
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

    def _models(self, spec: deployment_pb2.Deployment) -> tuple[ModelPart, ...]:
        """Read and check the models.

        Raises
        ------
        Unimplemented
            ``TRAFFIC_SPLIT``, ``SHADOW_TRAFFIC``: more than one model.
        NotFound
            ``MODEL_NOT_FOUND``.
        """
        if not spec.models:
            raise InvalidArgument("A deployment needs a model.", reason="NO_MODEL", field="deployment.models")
        if any(model.shadow for model in spec.models):
            raise Unimplemented("Shadow traffic is not there yet; deploy one model.", reason="SHADOW_TRAFFIC", field="deployment.models")
        if len(spec.models) > 1:
            raise Unimplemented(
                "Splitting the traffic among models is not there yet; deploy one model.", reason="TRAFFIC_SPLIT", field="deployment.models"
            )
        model = spec.models[0]
        if model.traffic_percent not in (0, 100):
            raise InvalidArgument(
                f"One model alone gets all the traffic: traffic_percent must be 100 or left out, not {model.traffic_percent}.",
                reason="BAD_TRAFFIC",
                field="deployment.models[0].traffic_percent",
            )
        model_id = model.model.removeprefix("models/")
        try:
            self._read_package(model_id)
        except NotFound as error:
            raise NotFound(error.message, reason="MODEL_NOT_FOUND", field="deployment.models[0].model") from error
        return (ModelPart(model_id, model.alias),)

    def _changed(self, current: Deployment, spec: deployment_pb2.Deployment, paths: list[str]) -> Deployment:
        unknown = sorted(set(paths) - set(_MASK))
        if unknown:
            raise InvalidArgument(
                f"update_mask may name {', '.join(_MASK)}; not {', '.join(unknown)}.", reason="BAD_UPDATE_MASK", field="update_mask"
            )
        chosen = set(paths) or {name for name in _MASK if getattr(spec, name)}
        if chosen & {"adapt", "translator"}:
            _check_adaptation(spec)
        return replace(
            current,
            models=self._models(spec) if "models" in chosen else current.models,
            display_name=spec.display_name if "display_name" in chosen else current.display_name,
            adapt=spec.adapt if "adapt" in chosen else current.adapt,
            labels=dict(spec.labels) if "labels" in chosen else current.labels,
            generation=current.generation + 1,
            operation="",
            update_time=datetime.now(UTC),
            # How the replicas stand is not known for what is asked for now; what serves goes on serving.
            replicas=tuple(replace(replica, ready=False, message="loading") for replica in current.replicas),
            failure=("", ""),
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


def _check_adaptation(spec: deployment_pb2.Deployment) -> None:
    if spec.adapt not in (inference_pb2.ADAPT_MODE_UNSPECIFIED, inference_pb2.ADAPT_MODE_OFF) or spec.translator:
        raise Unimplemented(
            "Translation before inference is not there yet; leave adapt and translator unset.",
            reason="ADAPTATION",
            field="deployment.adapt",
        )


def _id(name: str) -> str:
    return name.removeprefix("deployments/")


def _fingerprint(request: Any) -> str:
    bare = type(request)()
    bare.CopyFrom(request)
    bare.ClearField("request_id")
    return hashlib.sha256(bare.SerializeToString(deterministic=True)).hexdigest()


def _done(response: Message) -> operations_pb2.Operation:
    operation = operations_pb2.Operation(done=True)
    operation.response.Pack(response)
    return operation


def _encode_token(last: Deployment) -> str:
    return base64.urlsafe_b64encode(json.dumps([last.create_time.timestamp(), last.id]).encode()).decode()


def _decode_token(token: str) -> tuple[float, str] | None:
    if not token:
        return None
    try:
        made, last = json.loads(base64.urlsafe_b64decode(token))
        return float(made), str(last)
    except (binascii.Error, ValueError, TypeError) as error:
        raise InvalidArgument("page_token is not one that this list gave.", reason="BAD_PAGE_TOKEN", field="page_token") from error
