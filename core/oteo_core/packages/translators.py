"""Translator packages: what translate publishes, and what the gateway and the client read.

A package lies at ``translators/{id}/`` in the artifact store and exists if ``translator.json`` does, because that file is written last.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from oteo_core.errors import DataLoss, FailedPrecondition
from oteo_core.images import InputPolicy
from oteo_core.packages.manifest import MetricValue, PackageFile
from oteo_core.packages.reference import ReferenceStatistics
from oteo_core.packages.shelf import Shelf

TRANSLATOR_MANIFEST = "translator.json"
"""The file that makes a package exist."""

TRANSLATION = "translation.pt"
"""File that holds a translation of images."""

ENSEMBLE = "ensemble.pbtxt"
"""File with Triton's configuration of translator and model together."""

TRANSLATED = "translated"
"""Output of a translator's graph: the image, of the shape and type that the model takes."""

ADAPTED_MODEL = "adapted_model"
"""Key of `TranslatorPackage.details`: ``models/{id}`` that was adapted and published with it."""

TRANSLATOR_FORMAT = 1

IMAGE, MODEL = "image", "model"
"""What a method changes: the image before the model sees it, or the model itself."""


def triton_name(translator_id: str) -> str:
    """Give a translator's name on Triton, by its id; no model has it, as ids hold no underscore."""
    return f"translator_{translator_id}"


@dataclass(frozen=True, slots=True)
class MethodRecord:
    """How one way did on the shifted images.

    Parameters
    ----------
    method, parameters
        Its name and settings; ``"nothing"`` is what the frozen model does alone.
    score, gain
        The criterion after it, and what it gained over doing nothing, with intervals; None where it was not judged.
    structure
        How well structure is kept, 0 to 1; None where it was not judged.
    accepted
        Whether it may be used.
    reason
        Why, or why not; a sentence.
    figures
        More numbers: by name.
    seconds
        What fitting and judging took.
    """

    method: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    score: MetricValue | None = None
    gain: MetricValue | None = None
    structure: MetricValue | None = None
    accepted: bool = False
    reason: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> MethodRecord:
        """Read what `dataclasses.asdict` gave."""
        values = dict(data)
        for name in ("score", "gain", "structure"):
            values[name] = MetricValue(**values[name]) if values.get(name) else None
        return cls(**values)


@dataclass(slots=True)
class TranslatorPackage:
    """The manifest of a translator package, ``translators/{id}/translator.json``.

    Parameters
    ----------
    id, display_name, uid
        Last part of ``translators/{id}``; for people; a number that no other translator has.
    model, model_digest
        ``"models/{id}"`` that was frozen, and its package's digest: the evidence speaks of no other.
    home_dataset, shifted_dataset
        Full names.
    home_digest, shifted_digest
        Of their contents.
    method, parameters
        What was chosen.
    changes
        `IMAGE` or `MODEL`: what it changes.
    accepted, reason
        The gate's verdict and why; a rejected translator is kept with its evidence and used by nobody who does not ask for it.
    criterion
        What the verdict stands on: ``"labels"`` or ``"label-free"``, in words.
    input
        The model's input; translated images of this size are what was judged.
    shifted_reference
        Statistics of the shifted images, prepared: an image unlike these is from a third source, of which nothing was proved; None where unknown.
    evidence
        All ways that were tried, best first.
    files
        All files but the manifest, by path inside the package.
    versions, seed, budget, training_time, operation, create_time, digest, details, package_uri
        As in `oteo_core.packages.ModelPackage`.
    """

    id: str
    display_name: str
    uid: str
    model: str
    model_digest: str
    home_dataset: str
    shifted_dataset: str
    method: str
    accepted: bool
    reason: str
    input: InputPolicy
    create_time: datetime
    home_digest: str = ""
    shifted_digest: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)
    changes: str = IMAGE
    criterion: str = ""
    shifted_reference: ReferenceStatistics | None = None
    evidence: list[MethodRecord] = field(default_factory=list)
    files: dict[str, PackageFile] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    seed: int = 0
    budget: float = 0.0
    training_time: float = 0.0
    operation: str = ""
    digest: str = ""
    details: dict[str, Any] = field(default_factory=dict)
    package_uri: str = ""

    @property
    def name(self) -> str:
        """``translators/{id}``."""
        return f"translators/{self.id}"

    @property
    def triton_model(self) -> str:
        """Name of the translation alone on Triton."""
        return triton_name(self.id)

    @property
    def triton_path(self) -> str:
        """Folder of the translation's Triton model inside the package."""
        return f"triton/{self.triton_model}"

    @property
    def adapted_model(self) -> str:
        """``models/{id}`` of the model that was adapted; empty where the model was left as it is."""
        return str(self.details.get(ADAPTED_MODEL, ""))

    def to_json(self) -> bytes:
        """Give the manifest, UTF-8."""
        data = asdict(self)
        del data["package_uri"]
        data["create_time"] = self.create_time.isoformat()
        data["shifted_reference"] = self.shifted_reference.to_dict() if self.shifted_reference else None
        return json.dumps({"format": TRANSLATOR_FORMAT, **data}, indent=1, ensure_ascii=False, allow_nan=False).encode()

    @classmethod
    def from_json(cls, data: bytes, *, package_uri: str = "") -> TranslatorPackage:
        """Read a manifest.

        Raises
        ------
        DataLoss
            ``BROKEN_PACKAGE``: not a manifest, or of a newer form than this program knows.
        """
        try:
            values: dict[str, Any] = json.loads(data)
            form = values.pop("format")
            if form != TRANSLATOR_FORMAT:
                raise DataLoss(f"a translator of form {form}, and this program reads form {TRANSLATOR_FORMAT}", reason="BROKEN_PACKAGE")
            values["input"] = InputPolicy(**values["input"])
            values["create_time"] = datetime.fromisoformat(values["create_time"])
            shifted = values.get("shifted_reference")
            values["shifted_reference"] = ReferenceStatistics.from_dict(shifted) if shifted else None
            values["evidence"] = [MethodRecord.from_dict(one) for one in values["evidence"]]
            values["files"] = {name: PackageFile(**file) for name, file in values["files"].items()}
            return cls(**values, package_uri=package_uri)
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise DataLoss(f"a translator's manifest that cannot be read: {error!r}", reason="BROKEN_PACKAGE") from error


_TRANSLATORS = Shelf("translator", TRANSLATOR_MANIFEST, TranslatorPackage.from_json)

translator_prefix = _TRANSLATORS.prefix
read_translator = _TRANSLATORS.read
list_translators = _TRANSLATORS.list
delete_translator = _TRANSLATORS.delete


def check_usable(package: TranslatorPackage, *, allow_rejected: bool) -> None:
    """Refuse a translator that was rejected, unless asked for, and one that has no translation of images.

    Raises
    ------
    FailedPrecondition
        ``TRANSLATOR_REJECTED``; ``NOT_AN_IMAGE_TRANSLATOR`` where it changes the model and not the image.
    """
    if package.changes != IMAGE:
        raise FailedPrecondition(
            f"{package.name} adapts the model ({package.method}) and leaves images as they are: there is nothing to translate",
            reason="NOT_AN_IMAGE_TRANSLATOR",
        )
    if TRANSLATION not in package.files:
        raise FailedPrecondition(f"{package.name} recommends to translate nothing: {package.reason}", reason="TRANSLATOR_REJECTED")
    if not package.accepted and not allow_rejected:
        raise FailedPrecondition(
            f"{package.name} was rejected: {package.reason}; allow_rejected uses it all the same", reason="TRANSLATOR_REJECTED"
        )
