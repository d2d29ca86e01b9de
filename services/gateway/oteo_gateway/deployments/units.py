"""What a model server loads: a model, a translator, or the two as an ensemble; each a folder of its repository."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from oteo_core.images import InputPolicy
from oteo_core.packages import ModelPackage, model_prefix
from oteo_core.packages.translators import ENSEMBLE, TRANSLATED, TranslatorPackage, translator_prefix
from oteo_core.packages.variants import GRAPHS, check_variant, variant_path
from oteo_gateway.deployments.records import variant_unit
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
    instead
        Places in the artifact store of files that stand in for some of `source`, by their path in it.
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
    instead: Mapping[str, str] = field(default_factory=dict)


def model_unit(package: ModelPackage, variant: str = "") -> Unit:
    """Give the unit of a model, or of a variant that its package holds.

    Raises
    ------
    FailedPrecondition
        ``NO_VARIANT``.
    """
    prefix = model_prefix(package.id)
    source = f"{prefix}/{package.triton_path}"
    config, instead = f"{source}/{CONFIG}", {}
    if variant:
        check_variant(package, variant)
        place = f"{prefix}/{variant_path(variant)}"
        if variant in GRAPHS:
            instead = {"1/model.onnx": place}
        else:
            config = place
    name, outputs = variant_unit(package.triton_model, variant), OUTPUTS.get(package.task, ())
    return Unit(name, package.digest, package.name, package.input, outputs, config, source, package, instead=instead)


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
