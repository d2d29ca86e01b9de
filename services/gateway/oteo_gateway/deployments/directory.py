"""What is served, as predictions need it: read from the table in a short period and kept with the packages in memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from oteo_core.errors import FailedPrecondition, NotFound, OteoError, Unavailable
from oteo_core.packages import ModelPackage
from oteo_gateway.deployments.records import Deployment, Serving
from oteo_gateway.prediction.outputs import OUTPUTS
from oteo_gateway.prediction.tensors import InferTemplate

log = structlog.get_logger(__name__)

_RETRY_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Served:
    """A deployment that answers.

    Attributes
    ----------
    deployment
        As it was last read.
    package
        The package of the model that answers.
    template
        Its inference request.
    """

    deployment: Deployment
    package: ModelPackage
    template: InferTemplate


class Directory:
    """The deployments and their packages in memory.

    Parameters
    ----------
    list_deployments
        Reads the table; blocks.
    read_package
        Reads a package by its model's id; blocks.
    period
        Seconds between two readings.
    """

    def __init__(
        self,
        list_deployments: Callable[[], list[Deployment]],
        read_package: Callable[[str], ModelPackage],
        *,
        period: float = 1.0,
    ) -> None:
        self._list = list_deployments
        self._read_package = read_package
        self._period = period
        self._deployments: dict[str, Deployment] = {}
        self._packages: dict[Serving, tuple[ModelPackage, InferTemplate]] = {}
        self._read_at = float("-inf")
        self._lock = asyncio.Lock()

    async def run(self) -> None:
        """Read the table again and again, until cancelled."""
        while True:
            try:
                await self.refresh()
            except OteoError as error:
                # What was read last stands while the database is away.
                log.warning("deployments_not_read", error=error.message)
            await asyncio.sleep(self._period)

    async def refresh(self) -> None:
        """Read the table, unless somebody else's reading began after this call."""
        asked = time.monotonic()
        async with self._lock:
            if self._read_at > asked:
                return
            began = time.monotonic()
            found = await asyncio.to_thread(self._list)
            self._deployments = {deployment.id: deployment for deployment in found}
            self._read_at = began
            serving = {deployment.serving for deployment in found}
            self._packages = {key: value for key, value in self._packages.items() if key in serving}

    def serving(self, triton_model: str) -> frozenset[str] | None:
        """Give the addresses of the replicas that serve a model by its Triton name; None where no deployment has it."""
        found = [d for d in self._deployments.values() if d.serving is not None and d.serving.model_id == triton_model]
        return frozenset(found[0].answering) if found else None

    def triton_models(self) -> tuple[str, ...]:
        """Give the names on the model server of what is deployed."""
        return tuple(sorted({d.serving.model_id for d in self._deployments.values() if d.serving is not None}))

    async def find(self, deployment_id: str) -> Served:
        """Give a deployment that answers.

        Raises
        ------
        NotFound
            ``DEPLOYMENT_NOT_FOUND``.
        FailedPrecondition
            ``MODEL_NOT_FOUND``, ``MODEL_LOAD_FAILED``: it cannot be served as it is.
        Unavailable
            ``DEPLOYMENT_NOT_READY``: not yet, or not at the moment.
        """
        deployment = self._deployments.get(deployment_id)
        if deployment is None or deployment.serving is None or not deployment.answering:
            # Made or ready since the last reading.
            await self.refresh()
            deployment = self._deployments.get(deployment_id)
        if deployment is None:
            raise NotFound(f"There is no deployment deployments/{deployment_id}.", reason="DEPLOYMENT_NOT_FOUND", field="deployment")
        if deployment.serving is None or not deployment.answering:
            reason, message = deployment.failure
            if reason:
                raise FailedPrecondition(f"{deployment.name} cannot be served: {message}", reason=reason)
            raise not_ready(deployment.name, deployment.message or "its model is being loaded")
        package, template = self._packages.get(deployment.serving) or await self._load(deployment.serving, deployment.name)
        return Served(deployment, package, template)

    async def _load(self, serving: Serving, name: str) -> tuple[ModelPackage, InferTemplate]:
        package = await asyncio.to_thread(self._read_package, serving.model_id)
        if package.digest != serving.digest:
            raise not_ready(name, "its model was made anew and is being loaded")
        found = (package, InferTemplate(package.triton_model, "", package.input, OUTPUTS.get(package.task, ())))
        self._packages[serving] = found
        return found


def not_ready(name: str, why: str) -> Unavailable:
    """Give the error of a deployment that does not answer at the moment."""
    return Unavailable(f"{name} does not answer at the moment: {why}.", reason="DEPLOYMENT_NOT_READY", retry_after=_RETRY_SECONDS)
