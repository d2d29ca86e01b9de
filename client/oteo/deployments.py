"""Deployments: models in service."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator, Sequence

import grpc
from google.protobuf import empty_pb2

from oteo.connection import call, pages
from oteo.errors import OteoApiError
from oteo.names import enum_name, resource
from oteo.operations import OperationHandle
from oteo_protos.automl.v1 import automl_pb2
from oteo_protos.gateway.v1 import deployment_pb2, deployment_pb2_grpc, inference_pb2

CHAMPION, CHALLENGER = "champion", "challenger"
"""Aliases as they are usual: what answers, and what is to take its place."""

_PART = re.compile(r"(?P<model>[^=@]+)(=(?P<share>\d{1,3})%?)?(@(?P<alias>[^=@]+))?")

Models = str | deployment_pb2.DeployedModel | Sequence[str | deployment_pb2.DeployedModel]


def deployed(text: str, *, shadow: bool = False, variant: str = "") -> deployment_pb2.DeployedModel:
    """Read a model's part in a deployment: ``"cells"``, ``"cells=90"``, ``"cells@champion"`` or ``"cells=90@champion"``.

    Parameters
    ----------
    text
        The model, its share of the traffic in percent, and its alias.
    shadow
        True: it gets a copy of the traffic, and its answers are only compared.
    variant
        ``"bf16"``, ``"int8"`` or ``"fp16"``: the form that answers, where the model's training kept it; empty: the model itself.

    Raises
    ------
    OteoApiError
        INVALID_ARGUMENT, reason BAD_MODEL: not of this form.
    """
    found = _PART.fullmatch(text.strip())
    if found is None:
        raise OteoApiError(
            "INVALID_ARGUMENT",
            f"{text!r} is not MODEL, MODEL=PERCENT, MODEL@ALIAS or MODEL=PERCENT@ALIAS",
            reason="BAD_MODEL",
            field="models",
        )
    return deployment_pb2.DeployedModel(
        model=resource("models", found["model"]),
        traffic_percent=int(found["share"] or 0),
        alias=found["alias"] or "",
        shadow=shadow,
        variant=enum_name(automl_pb2.ModelVariant, "MODEL_VARIANT_", variant, "variant"),
    )


def adapt_mode(adapt: str) -> str:
    """Give the full name of ``"off"``, ``"suggest"`` or ``"auto"``; empty: the unspecified one."""
    return enum_name(inference_pb2.AdaptMode, "ADAPT_MODE_", adapt, "adapt")


class Deployments:
    """Deployments of the gateway."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel
        self._stub = deployment_pb2_grpc.DeploymentServiceStub(channel)

    def create(
        self,
        models: Models,
        *,
        deployment_id: str = "",
        name: str = "",
        shadows: Sequence[str] = (),
        adapt: str = "",
        translator: str = "",
        variant: str = "",
        request_id: str | None = None,
    ) -> OperationHandle[deployment_pb2.Deployment]:
        """Put models into service; the operation ends when every Triton replica has answered a probe of each.

        Parameters
        ----------
        models
            One, or several with their shares; see `deployed`.
        deployment_id
            Empty: the first model's.
        name
            For people.
        shadows
            Models that get a copy of the traffic and are only compared.
        adapt
            ``"off"``, ``"suggest"`` or ``"auto"``: whether images that look shifted are translated first.
        translator
            The one to use; empty: the newest that was accepted for the model.
        variant
            Of all models that are named as text; see `deployed`.
        request_id
            A UUID; the same twice gives the first operation.
        """
        request = deployment_pb2.CreateDeploymentRequest(
            deployment_id=deployment_id,
            deployment=deployment_pb2.Deployment(
                display_name=name, models=_parts(models, shadows, variant), adapt=adapt_mode(adapt), translator=_translator(translator)
            ),
            request_id=request_id or str(uuid.uuid4()),
        )
        operation = call(self._stub.CreateDeployment, request, timeout=60)
        return OperationHandle(self._channel, operation, deployment_pb2.Deployment)

    def update(
        self,
        name: str,
        models: Models = (),
        *,
        shadows: Sequence[str] = (),
        adapt: str = "",
        translator: str | None = None,
        variant: str = "",
        etag: str = "",
        request_id: str | None = None,
    ) -> OperationHandle[deployment_pb2.Deployment]:
        """Change what a deployment is served by; what answers now goes on until what comes answers everywhere.

        Parameters
        ----------
        name
            The deployment.
        models, shadows
            All that there are to be; none: the models stay.
        adapt
            As of `create`; empty: as it is.
        translator
            As of `create`; None: as it is.
        variant
            As of `create`.
        etag
            Of the deployment as it was read: refused where somebody changed it since.
        request_id
            A UUID; the same twice gives the first operation.
        """
        request = deployment_pb2.UpdateDeploymentRequest(
            deployment=deployment_pb2.Deployment(
                name=resource("deployments", name),
                models=_parts(models, shadows, variant),
                adapt=adapt_mode(adapt),
                translator=_translator(translator or ""),
                etag=etag,
            ),
            request_id=request_id or str(uuid.uuid4()),
        )
        chosen = {"models": bool(request.deployment.models), "adapt": bool(adapt), "translator": translator is not None}
        request.update_mask.paths.extend(path for path, wanted in chosen.items() if wanted)
        if not request.update_mask.paths:
            raise OteoApiError("INVALID_ARGUMENT", "nothing to change: name models, adapt or a translator", reason="NOTHING_TO_CHANGE")
        operation = call(self._stub.UpdateDeployment, request, timeout=60)
        return OperationHandle(self._channel, operation, deployment_pb2.Deployment)

    def promote(self, name: str, alias: str = CHALLENGER, *, request_id: str | None = None) -> OperationHandle[deployment_pb2.Deployment]:
        """Give the model of an alias all the traffic and the alias "champion".

        The models that answered before leave, and come back by `rollback`; the other shadows stay.

        Raises
        ------
        OteoApiError
            NOT_FOUND, reason ALIAS_NOT_FOUND; FAILED_PRECONDITION, reason ETAG_MISMATCH: somebody changed the deployment meanwhile.
        """
        current = self.get(name)
        found = [part for part in current.models if part.alias == alias]
        if not found:
            names = ", ".join(part.alias for part in current.models if part.alias) or "none"
            raise OteoApiError(
                "NOT_FOUND", f"no model of {current.name} goes by {alias!r}; its aliases: {names}", reason="ALIAS_NOT_FOUND", field="alias"
            )
        promoted = deployment_pb2.DeployedModel(model=found[0].model, traffic_percent=100, alias=CHAMPION, variant=found[0].variant)
        others = [part for part in current.models if part.shadow and part.model != promoted.model]
        return self.update(name, [promoted, *others], etag=current.etag, request_id=request_id)

    def rollback(self, name: str, generation: int = 0, *, request_id: str | None = None) -> OperationHandle[deployment_pb2.Deployment]:
        """Put an earlier revision's models, shares and translator back; 0: the newest. A second time undoes it."""
        request = deployment_pb2.RollbackDeploymentRequest(
            name=resource("deployments", name), generation=generation, request_id=request_id or str(uuid.uuid4())
        )
        operation = call(self._stub.RollbackDeployment, request, timeout=60)
        return OperationHandle(self._channel, operation, deployment_pb2.Deployment)

    def get(self, name: str) -> deployment_pb2.Deployment:
        """Give one deployment."""
        return call(self._stub.GetDeployment, deployment_pb2.GetDeploymentRequest(name=resource("deployments", name)), timeout=30)

    def list(self, limit: int | None = None) -> Iterator[deployment_pb2.Deployment]:
        """Give deployments, newest first."""
        return pages(self._stub.ListDeployments, deployment_pb2.ListDeploymentsRequest(), "deployments", limit)

    def delete(self, name: str, *, allow_missing: bool = False) -> empty_pb2.Empty:
        """Take a deployment out of service."""
        request = deployment_pb2.DeleteDeploymentRequest(
            name=resource("deployments", name), allow_missing=allow_missing, request_id=str(uuid.uuid4())
        )
        return call(self._stub.DeleteDeployment, request, timeout=120)


def _parts(models: Models, shadows: Sequence[str], variant: str) -> Sequence[deployment_pb2.DeployedModel]:
    given = [models] if isinstance(models, (str, deployment_pb2.DeployedModel)) else models
    answering = [deployed(part, variant=variant) if isinstance(part, str) else part for part in given]
    return [*answering, *(deployed(part, shadow=True, variant=variant) for part in shadows)]


def _translator(name: str) -> str:
    return resource("translators", name) if name else ""
