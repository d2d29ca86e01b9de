"""Which translator adapts images to a model, and what the model server needs for it.

Only translators that passed their gate are used, and only for the very model that they were judged with: the evidence speaks of no other.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from oteo_core.errors import FailedPrecondition, NotFound, OteoError
from oteo_core.packages import ModelPackage
from oteo_core.packages.translators import ENSEMBLE, TRANSLATION, TranslatorPackage
from oteo_gateway.deployments.records import Bridge
from oteo_gateway.deployments.units import Unit, ensemble_unit, model_unit, translator_unit


@dataclass(frozen=True, slots=True)
class Adaptation:
    """A translator with a model that it was accepted for: what answers, and all that has to be loaded for that."""

    bridge: Bridge
    units: tuple[Unit, ...]


class Adaptations:
    """Finds translators.

    Parameters
    ----------
    read_translator
        Gives a translator by its name; raises NotFound.
    list_translators
        Gives all, newest first.
    read_package
        Gives a model's package by its id; raises NotFound.
    period
        Seconds for which a list of all translators is believed.
    """

    def __init__(
        self,
        read_translator: Callable[[str], TranslatorPackage],
        list_translators: Callable[[], Sequence[TranslatorPackage]],
        read_package: Callable[[str], ModelPackage],
        *,
        period: float = 10.0,
    ) -> None:
        self._read = read_translator
        self._list = list_translators
        self._read_package = read_package
        self._period = period
        self._listed: tuple[float, Sequence[TranslatorPackage]] = (float("-inf"), ())

    def named(self, name: str, package: ModelPackage) -> Adaptation:
        """Give the adaptation of a model by a named translator.

        Raises
        ------
        NotFound
            ``TRANSLATOR_NOT_FOUND``.
        FailedPrecondition
            ``TRANSLATOR_NOT_ACCEPTED``, ``TRANSLATOR_OTHER_MODEL`` or ``TRANSLATOR_NOT_SERVED``: it may not, or cannot, be put before the model.
        """
        return self._adaptation(self._read(name), package)

    def newest(self, package: ModelPackage) -> Adaptation | None:
        """Give the adaptation by the newest translator that was accepted for a model and can be served; None where there is none."""
        now = time.monotonic()
        if now - self._listed[0] >= self._period:
            self._listed = now, self._list()
        for translator in self._listed[1]:
            try:
                return self._adaptation(translator, package)
            except OteoError:
                continue
        return None

    def check(self, name: str, packages: Sequence[ModelPackage]) -> None:
        """Refuse a named translator that no model of a deployment can have; see `named`."""
        errors: list[OteoError] = []
        for package in packages:
            try:
                self.named(name, package)
            except NotFound as error:
                raise NotFound(error.message, reason=error.reason, field="deployment.translator") from error
            except OteoError as error:
                errors.append(error)
            else:
                return
        # Of several models the one that it was made for has the most to say.
        ours = [error for error in errors if error.reason != "TRANSLATOR_OTHER_MODEL"]
        raise (ours or errors)[0]

    def _adaptation(self, translator: TranslatorPackage, package: ModelPackage) -> Adaptation:
        if not translator.accepted:
            raise _refused(f"{translator.name} did not pass its gate: {translator.reason}", "TRANSLATOR_NOT_ACCEPTED")
        if translator.model != package.name:
            raise _refused(f"{translator.name} was judged with {translator.model}, not with {package.name}", "TRANSLATOR_OTHER_MODEL")
        if translator.model_digest != package.digest or translator.input != package.input:
            raise _refused(
                f"{translator.name} was judged with an earlier {package.name}, which was made anew since; train a translator for it",
                "TRANSLATOR_OTHER_MODEL",
            )
        served = self._adapted(translator, package) if translator.adapted_model else package
        units: tuple[Unit, ...] = ()
        if TRANSLATION in translator.files:
            if ENSEMBLE not in translator.files:
                notes = " ".join(str(note) for note in translator.details.get("notes", ()))
                raise _refused(
                    f"{translator.name} ({translator.method}) has no graph to serve: {notes}".rstrip(": "), "TRANSLATOR_NOT_SERVED"
                )
            answering = ensemble_unit(translator, served)
            units = (translator_unit(translator), answering)
        elif served is package:
            raise _refused(f"{translator.name} changes neither image nor model: {translator.reason}", "TRANSLATOR_NOT_SERVED")
        else:
            answering = model_unit(served)
        if served is not package:
            units = (*units, model_unit(served))
        return Adaptation(Bridge(translator.id, answering.name, answering.digest, served.id, served.digest), units)

    def _adapted(self, translator: TranslatorPackage, package: ModelPackage) -> ModelPackage:
        try:
            adapted = self._read_package(translator.adapted_model.removeprefix("models/"))
        except NotFound as error:
            raise _refused(
                f"{translator.adapted_model}, which {translator.name} adapted, is not there any more", "TRANSLATOR_NOT_SERVED"
            ) from error
        if (adapted.task, adapted.classes, adapted.input) != (package.task, package.classes, package.input):
            raise _refused(f"{adapted.name} is no adapted {package.name}: task, classes or input differ", "TRANSLATOR_NOT_SERVED")
        return adapted


def _refused(message: str, reason: str) -> FailedPrecondition:
    return FailedPrecondition(f"{message}.", reason=reason, field="deployment.translator")
