"""From what deployments ask for to what the model servers have to have loaded."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import structlog

from oteo_core.errors import FailedPrecondition, NotFound, OteoError
from oteo_core.packages import ModelPackage
from oteo_gateway.deployments.adaptations import Adaptation, Adaptations
from oteo_gateway.deployments.records import Bridge, Deployment, ServingModel
from oteo_gateway.deployments.repository import ModelRepository
from oteo_gateway.deployments.units import Unit, model_unit

log = structlog.get_logger(__name__)

SUGGEST, AUTO = 2, 3
"""Numbers of the contract's ``AdaptMode`` that need a translator loaded."""


@dataclass(frozen=True, slots=True)
class Target:
    """What a deployment is to be served with.

    Attributes
    ----------
    models
        None where one of them cannot be served at all.
    failure
        Why that is, or why there is no translator; None where nothing is wrong.
    """

    models: tuple[ServingModel, ...] | None
    failure: OteoError | None = None


@dataclass(slots=True)
class Plan:
    """What is to be loaded by name, and each deployment's target by its id."""

    units: dict[str, Unit] = field(default_factory=dict)
    targets: dict[str, Target] = field(default_factory=dict)


class Planner:
    """Makes the plan, and has the folders of all that is in it be in the repository.

    Parameters
    ----------
    repository
        The model servers' repository.
    read_package
        Gives a model's package by its id; raises NotFound where it is gone.
    adaptations
        Finds translators.
    period
        Seconds for which packages and their folders are believed to be as they were.
    """

    def __init__(
        self, repository: ModelRepository, read_package: Callable[[str], ModelPackage], adaptations: Adaptations, *, period: float
    ) -> None:
        self._repository = repository
        self._read_package = read_package
        self._adaptations = adaptations
        self._period = period
        self._packages: dict[str, tuple[float, ModelPackage]] = {}
        self._written: dict[str, tuple[float, str]] = {}
        self._found: dict[tuple[str, str, str], tuple[float, Adaptation | None]] = {}

    def plan(self, deployments: Sequence[Deployment]) -> Plan:
        """Give what is to be loaded: what is asked for, and what serves until that is there."""
        plan = Plan()
        for deployment in deployments:
            plan.targets[deployment.id] = self._target(deployment, plan)
        for deployment in deployments:
            for model in deployment.serving.models if deployment.serving is not None else ():
                self._keep(model, plan)
        packages = {unit.package.id for unit in plan.units.values() if unit.package is not None}
        self._written = {name: kept for name, kept in self._written.items() if name in plan.units}
        self._packages = {name: kept for name, kept in self._packages.items() if name in packages}
        return plan

    def _target(self, deployment: Deployment, plan: Plan) -> Target:
        models: list[ServingModel] = []
        packages: list[ModelPackage] = []
        failure: OteoError | None = None
        for part in deployment.models:
            try:
                packages.append(package := self._package(part.model_id))
                self._add(plan, model_unit(package, part.variant))
                models.append(ServingModel(part, package.digest))
            except NotFound:
                failure = FailedPrecondition(
                    f"The model models/{part.model_id} is not there any more; update the deployment to another, or delete it.",
                    reason="MODEL_NOT_FOUND",
                )
            except OteoError as error:
                failure = error
        if failure is not None:
            return Target(None, failure)
        if deployment.adapt not in (SUGGEST, AUTO):
            return Target(tuple(models))
        bridges, failure = self._bridges(deployment, packages, plan)
        return Target(tuple(ServingModel(m.part, m.digest, bridge) for m, bridge in zip(models, bridges, strict=True)), failure)

    def _bridges(
        self, deployment: Deployment, packages: Sequence[ModelPackage], plan: Plan
    ) -> tuple[list[Bridge | None], OteoError | None]:
        """Give what adapts images for each model, None where nothing does; and why the translator that was named is used by none of them."""
        bridges: list[Bridge | None] = []
        errors: list[OteoError] = []
        for package in packages:
            try:
                found = self._adaptation(deployment.translator, package)
                for unit in _bridging(package, found):
                    self._add(plan, unit)
                bridges.append(found.bridge if found is not None else None)
            except OteoError as error:
                errors.append(error)
                bridges.append(None)
        if any(bridges) or not errors:
            return bridges, None
        ours = [error for error in errors if error.reason != "TRANSLATOR_OTHER_MODEL"]
        first = (ours or errors)[0]
        return bridges, FailedPrecondition(f"Images are not translated: {first.message}", reason=first.reason or "TRANSLATOR_NOT_SERVED")

    def _adaptation(self, translator: str, package: ModelPackage) -> Adaptation | None:
        key, now = (translator, package.id, package.digest), time.monotonic()
        kept = self._found.get(key)
        if kept is not None and now - kept[0] < self._period:
            return kept[1]
        found = self._adaptations.named(translator, package) if translator else self._adaptations.newest(package)
        self._found = {one: value for one, value in self._found.items() if now - value[0] < self._period} | {key: (now, found)}
        return found

    def _keep(self, model: ServingModel, plan: Plan) -> None:
        """Add what a model that serves now needs, as far as it is still there."""
        for add in (self._keep_model, self._keep_bridge):
            try:
                add(model, plan)
            except OteoError as error:
                log.debug("no_longer_there", model=model.part.model_id, error=error.message)

    def _keep_model(self, model: ServingModel, plan: Plan) -> None:
        if model.part.unit not in plan.units:
            self._add(plan, model_unit(self._package(model.part.model_id), model.part.variant))

    def _keep_bridge(self, model: ServingModel, plan: Plan) -> None:
        bridge = model.bridge
        if bridge is None or bridge.unit in plan.units:
            return
        package = self._package(model.part.model_id)
        for unit in _bridging(package, self._adaptation(f"translators/{bridge.translator_id}", package)):
            self._add(plan, unit)

    def _package(self, model_id: str) -> ModelPackage:
        """Give a package; it is looked at again every few periods, not in each."""
        kept = self._packages.get(model_id)
        now = time.monotonic()
        if kept is not None and now - kept[0] < self._period:
            return kept[1]
        self._packages.pop(model_id, None)
        package = self._read_package(model_id)
        self._packages[model_id] = (now, package)
        return package

    def _add(self, plan: Plan, unit: Unit) -> None:
        """Have a unit's folder be in the repository, and load it."""
        if unit.name in plan.units:
            return
        now = time.monotonic()
        at, digest = self._written.get(unit.name, (float("-inf"), ""))
        if digest != unit.digest or now - at >= self._period:
            self._written.pop(unit.name, None)
            if self._repository.write(unit):
                log.info("package_written", unit=unit.name, digest=unit.digest[:12])
            self._written[unit.name] = (now, unit.digest)
        plan.units[unit.name] = unit


def _bridging(package: ModelPackage, found: Adaptation | None) -> tuple[Unit, ...]:
    """Give all that an adaptation needs: the model itself too, which a deployment of a variant has not loaded. A translator was judged with the model, not with a variant."""
    return (model_unit(package), *found.units) if found is not None else ()
