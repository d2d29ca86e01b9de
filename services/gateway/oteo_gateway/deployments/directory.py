"""What is served, as predictions need it: read from the table in a short period and kept with the packages in memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog

from oteo_core.errors import FailedPrecondition, NotFound, OteoError, Unavailable
from oteo_core.packages import ModelPackage, ReferenceStatistics
from oteo_core.packages.translators import TranslatorPackage
from oteo_gateway.deployments.records import LOAD_FAILED, Bridge, Deployment, ServingModel
from oteo_gateway.prediction.outputs import OUTPUTS
from oteo_gateway.prediction.routing import Answering, RoutedModel, Routes
from oteo_gateway.prediction.tensors import InferTemplate

log = structlog.get_logger(__name__)

_RETRY_SECONDS = 1.0


class Directory:
    """The deployments and their packages in memory.

    Parameters
    ----------
    list_deployments
        Reads the table; blocks.
    read_package
        Reads a package by its model's id; blocks.
    read_translator
        Reads a translator by its id; blocks.
    period
        Seconds between two readings.
    """

    def __init__(
        self,
        list_deployments: Callable[[], list[Deployment]],
        read_package: Callable[[str], ModelPackage],
        read_translator: Callable[[str], TranslatorPackage],
        *,
        period: float = 1.0,
    ) -> None:
        self._list = list_deployments
        self._read_package = read_package
        self._read_translator = read_translator
        self._period = period
        self._deployments: dict[str, Deployment] = {}
        self._packages: dict[tuple[str, str], ModelPackage] = {}
        self._sources: dict[tuple[str, str], ReferenceStatistics | None] = {}
        self._routes: dict[str, tuple[Deployment, Routes]] = {}
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
            # One that is as it was stays the same object, so that what was made of it stands.
            before = self._deployments
            self._deployments = {d.id: kept if (kept := before.get(d.id)) == d else d for d in found}
            self._read_at = began
            serving = [model for deployment in found if deployment.serving is not None for model in deployment.serving.models]
            used = {key for model in serving for key in _packages(model)}
            bridged = {(model.bridge.translator_id, model.bridge.digest) for model in serving if model.bridge is not None}
            self._packages = {key: value for key, value in self._packages.items() if key in used}
            self._sources = {key: value for key, value in self._sources.items() if key in bridged}
            self._routes = {key: value for key, value in self._routes.items() if key in self._deployments}

    def serving(self, unit: str) -> frozenset[str] | None:
        """Give the addresses of the replicas that answer with a name of the model server; None where no deployment has it."""
        found = [d for d in self._deployments.values() if d.serving is not None and any(name == unit for name, _ in d.serving.units())]
        return frozenset(found[0].answering_with(unit)) if found else None

    def triton_models(self) -> tuple[str, ...]:
        """Give the names on the model server of what is deployed."""
        return tuple(sorted({name for d in self._deployments.values() if d.serving is not None for name, _ in d.serving.units()}))

    async def find(self, deployment_id: str) -> Routes:
        """Give the ways to a deployment that answers.

        Raises
        ------
        NotFound
            ``DEPLOYMENT_NOT_FOUND``.
        FailedPrecondition
            ``MODEL_NOT_FOUND``, ``MODEL_LOAD_FAILED``: it cannot be served as it is; the latter of one that has never answered.
        Unavailable
            ``DEPLOYMENT_NOT_READY``: not yet, or not at the moment.
        """
        deployment = self._deployments.get(deployment_id)
        if deployment is None or not deployment.answering:
            # Made or ready since the last reading.
            await self.refresh()
            deployment = self._deployments.get(deployment_id)
        if deployment is None:
            raise NotFound(f"There is no deployment deployments/{deployment_id}.", reason="DEPLOYMENT_NOT_FOUND", field="deployment")
        serving = deployment.serving
        if serving is None or not deployment.answering:
            reason, message = deployment.failure
            # What answered before and does not load any more is the replicas' trouble: they are mended, and callers do well to try again.
            if reason and (serving is None or reason != LOAD_FAILED):
                raise FailedPrecondition(f"{deployment.name} cannot be served: {message}", reason=reason)
            raise not_ready(deployment.name, message or deployment.message or "its model is being loaded")
        kept = self._routes.get(deployment_id)
        if kept is not None and kept[0] is deployment:
            return kept[1]
        models = [await self._model(deployment, model) for model in serving.models]
        routes = Routes(deployment.name, deployment.uid, serving.mark, tuple(m for m in models if m is not None), deployment.adapt)
        if not any(not model.shadow for model in routes.models):
            raise not_ready(deployment.name, "its model was made anew and is being loaded")
        self._routes[deployment_id] = deployment, routes
        return routes

    async def _model(self, deployment: Deployment, model: ServingModel) -> RoutedModel | None:
        """Give one model; None where its package is not, or not any more, the one that serves."""
        part, bridge = model.part, model.bridge
        package = await self._package(part.model_id, model.digest)
        if package is None:
            return None
        adapted: Answering | None = None
        source: ReferenceStatistics | None = None
        if bridge is not None:
            try:
                source = await self._source(bridge)
            except NotFound:
                # Deleted a moment ago: the deployment will say so.
                bridge = None
        if bridge is not None and deployment.answering_with(bridge.unit):
            reader = await self._package(bridge.model_id, bridge.model_digest)
            adapted = _answering(reader, bridge.unit) if reader is not None else None
        return RoutedModel(
            plain=_answering(package, part.unit),
            alias=part.alias,
            percent=part.percent,
            shadow=part.shadow,
            available=bool(deployment.answering_with(part.unit)),
            translator=f"translators/{bridge.translator_id}" if bridge is not None else "",
            adapted=adapted,
            source=source,
        )

    async def _source(self, bridge: Bridge) -> ReferenceStatistics | None:
        """Give the statistics of the images that a translator was judged on; raises NotFound where the translator is gone."""
        key = bridge.translator_id, bridge.digest
        if key not in self._sources:
            self._sources[key] = (await asyncio.to_thread(self._read_translator, bridge.translator_id)).shifted_reference
        return self._sources[key]

    async def _package(self, model_id: str, digest: str) -> ModelPackage | None:
        kept = self._packages.get((model_id, digest))
        if kept is None:
            try:
                kept = await asyncio.to_thread(self._read_package, model_id)
            except NotFound:
                return None
            if kept.digest != digest:
                return None
            self._packages[model_id, digest] = kept
        return kept


def _packages(model: ServingModel) -> list[tuple[str, str]]:
    bridge = model.bridge
    return [(model.part.model_id, model.digest), *([(bridge.model_id, bridge.model_digest)] if bridge is not None else [])]


def _answering(package: ModelPackage, unit: str) -> Answering:
    return Answering(package, InferTemplate(unit, "", package.input, OUTPUTS.get(package.task, ())))


def not_ready(name: str, why: str) -> Unavailable:
    """Give the error of a deployment that does not answer at the moment."""
    return Unavailable(f"{name} does not answer at the moment: {why}.", reason="DEPLOYMENT_NOT_READY", retry_after=_RETRY_SECONDS)
