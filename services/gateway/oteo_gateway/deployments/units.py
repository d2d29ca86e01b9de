"""What a model server loads: a model, a translator, or the two as an ensemble; each a folder of its repository."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from oteo_core.images import InputPolicy
from oteo_core.packages import ModelPackage, model_prefix
from oteo_core.packages.translators import ENSEMBLE, TRANSLATED, TranslatorPackage, translator_prefix
from oteo_gateway.prediction.outputs import OUTPUTS

CONFIG = "config.pbtxt"


@dataclass(frozen=True, slots=True)
class Unit:
    """One folder of the model server's repository.

    Attributes
    ----------
    name
        On the model server; unique among all units.
    digest
        Of all that decides its answers.
    owner
        ``models/{id}`` or ``translators/{id}``, for messages.
    policy
        What it takes.
    outputs
        What it is asked for; none: all that it has.
    config
        Its configuration's path in the artifact store.
    source
        Folder of its other files there; empty where it has none, as an ensemble.
    package
        The package that its answers are checked by; None for a translator, which gives an image.
    needs
        Names of the units that have to be loaded before it.
    """

    name: str
    digest: str
    owner: str
    policy: InputPolicy
    outputs: tuple[str, ...]
    config: str
    source: str = ""
    package: ModelPackage | None = None
    needs: tuple[str, ...] = ()


def model_unit(package: ModelPackage) -> Unit:
    """Give the unit of a model."""
    source = f"{model_prefix(package.id)}/{package.triton_path}"
    outputs = OUTPUTS.get(package.task, ())
    return Unit(package.triton_model, package.digest, package.name, package.input, outputs, f"{source}/{CONFIG}", source, package)


def translator_unit(translator: TranslatorPackage) -> Unit:
    """Give the unit of a translation of images."""
    source = f"{translator_prefix(translator.id)}/{translator.triton_path}"
    return Unit(translator.triton_model, translator.digest, translator.name, translator.input, (TRANSLATED,), f"{source}/{CONFIG}", source)


def ensemble_unit(translator: TranslatorPackage, served: ModelPackage) -> Unit:
    """Give the unit of a translation before a model; `served` is the model or, where it was adapted too, the adapted one."""
    return Unit(
        name=f"{served.triton_model}_{translator.id}",
        digest=hashlib.sha256(f"{translator.digest}:{served.digest}".encode()).hexdigest(),
        owner=translator.name,
        policy=served.input,
        outputs=OUTPUTS.get(served.task, ()),
        config=f"{translator_prefix(translator.id)}/{ENSEMBLE}",
        package=served,
        needs=(translator.triton_model, served.triton_model),
    )


def in_order(units: Mapping[str, Unit]) -> list[Unit]:
    """Give units so that each comes after those that it needs."""
    return sorted(units.values(), key=lambda unit: (bool(unit.needs), unit.name))


def unloading_order(name: str) -> tuple[int, str]:
    """Give the place of a name among those that are unloaded: ensembles first, then translators, then models.

    Ids hold no underscore, so names tell which is which, also where nobody remembers what was loaded.
    """
    if "_" not in name:
        return 2, name
    return (1 if name.startswith("translator_") else 0), name
