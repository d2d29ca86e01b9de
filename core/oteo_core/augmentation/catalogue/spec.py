"""What the catalogue says of one transform, and how the transform is made from it."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from oteo_core.augmentation.catalogue.agreement import Agreement
from oteo_core.augmentation.catalogue.parameters import Parameter
from oteo_core.errors import InvalidArgument

PIXEL_TYPES = ("uint8", "uint16", "float32")
"""The types of pixels that augmentation knows, as NumPy calls them."""
_OBJECT_TASKS = ("detection", "semantic_segmentation", "instance_segmentation")
_TASKS = (
    "classification",
    "multi_label_classification",
    "detection",
    "semantic_segmentation",
    "instance_segmentation",
    "keypoints",
)
FEW_CHANNELS = frozenset({1, 2, 3, 4})
"""As many channels as OpenCV holds to be one image."""


@dataclass(frozen=True)
class TransformSpec:
    """One transform.

    Attributes
    ----------
    name
        Its name; that of albumentations 2.0 where the transform is albumentations' own.
    summary
        What it does, a sentence.
    options
        The parameters that may be given.
    fixed
        Parameters that are not for a policy to change.
    aliases
        Other names.
    geometric
        True if it moves pixels.
    mirrors
        True if it can swap left and right.
    resizes
        True if the result can have another height or width, beyond a swap of the two by a quarter turn.
    channels
        Numbers of channels that it is defined for; empty: any.
    pixel_types
        Types of pixels that it is defined for.
    unit_range
        True if it computes with brightness: floating-point pixels must then lie in 0 to 1. 16-bit pixels are computed in
        float32 and rounded back, which keeps all their bits.
    mixes
        True if floating-point pixels of any finite range go through it scaled to 0 to 1 and back, as they may where it takes
        weighted means of pixels.
    in_float
        True if 8-bit pixels are computed in float32, too, because albumentations' table of 256 values cuts fractions off. Each value must
        become another one by itself, wherever it stands, since our own table is made so.
    needs_objects
        True if it has to know where objects are: it is for tasks that say so.
    neutral
        Parameters with which it changes nothing; empty where it has no such strength.
    factory
        ``module:name`` of what makes it; empty: albumentations' class of its name. A string, because the import costs seconds.
    source
        Paper or standard that it follows; empty for what needs none.
    group
        Heading that it stands under in the catalogue's page.
    agreement
        How closely the second engine does it as the first; None where it does not do it.
    """

    name: str
    summary: str
    options: Mapping[str, Parameter] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()
    geometric: bool = False
    mirrors: bool = False
    resizes: bool = False
    channels: frozenset[int] = frozenset()
    pixel_types: tuple[str, ...] = PIXEL_TYPES
    unit_range: bool = False
    mixes: bool = False
    in_float: bool = False
    needs_objects: bool = False
    neutral: Mapping[str, Any] = field(default_factory=dict)
    factory: str = ""
    source: str = ""
    group: str = ""
    agreement: Agreement | None = None

    @cached_property
    def parameters(self) -> Mapping[str, Any]:
        """The parameters that may be given, with their defaults."""
        return {name: parameter.default for name, parameter in self.options.items()}

    def refusal(self, pixel_type: str, channels: int) -> str:
        """Say why the transform is not defined for such pixels; empty if it is.

        Parameters
        ----------
        pixel_type
            "uint8", "uint16" or "float32".
        channels
            Number of channels.
        """
        if self.channels and channels not in self.channels:
            wanted = " or ".join(map(str, sorted(self.channels)))
            return f"{self.name} is defined for {wanted} channels; the image has {channels}"
        if pixel_type not in self.pixel_types:
            return f"{self.name} is defined for pixels of {' or '.join(self.pixel_types)}; the image has {pixel_type}"
        return ""

    def check_names(self, given: Mapping[str, Any], *, field: str) -> None:
        """Raise InvalidArgument BAD_PARAMETER for a parameter that the transform does not have."""
        unknown = sorted(set(given) - set(self.options))
        if unknown:
            known = ", ".join(sorted(self.options)) or "none"
            raise InvalidArgument(
                f"{self.name} has no parameter {', '.join(map(repr, unknown))}; it has: {known}",
                reason="BAD_PARAMETER",
                field=f"{field}.{unknown[0]}",
            )

    def checked(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Give all parameters, the given ones checked and the others with their defaults.

        Raises
        ------
        InvalidArgument
            BAD_PARAMETER with field ``parameters.NAME``.
        """
        self.check_names(given, field="parameters")
        values = dict(self.parameters)
        for name, value in given.items():
            try:
                values[name] = self.options[name].check(value, name)
            except InvalidArgument as error:
                raise InvalidArgument(f"{self.name}: {error.message}", reason=error.reason, field=error.field) from None
        return values

    def build(self, parameters: Mapping[str, Any]) -> Any:
        """Make the transform, which then always applies (p = 1).

        Parameters
        ----------
        parameters
            Those that differ from the defaults; lists stand for tuples, as JSON has no others.

        Returns
        -------
        albumentations.BasicTransform
            A new one; its generators are for the caller to set.

        Raises
        ------
        InvalidArgument
            BAD_PARAMETER with field ``parameters.NAME``, or ``parameters`` where two do not fit together.
        """
        values = self.checked(parameters)
        module, _, name = (self.factory or f"albumentations:{self.name}").partition(":")
        make = getattr(_loaded(module), name)
        try:
            return make(**values, **self.fixed, p=1.0)
        except (ValueError, TypeError) as error:
            told = str(error).replace("\n", "; ")
            raise InvalidArgument(
                f"{self.name} does not take these parameters together: {told}", reason="BAD_PARAMETER", field="parameters"
            ) from error

    def schema(self) -> dict[str, Any]:
        """Give the JSON schema (draft 2020-12) of its parameters."""
        properties = {name: {"title": name, **parameter.schema()} for name, parameter in self.options.items()}
        return {"title": self.name, "type": "object", "properties": properties, "additionalProperties": False}

    @property
    def engines(self) -> tuple[str, ...]:
        """The engines that have it: "cpu", and "gpu" where `agreement` says how closely."""
        return ("cpu",) if self.agreement is None else ("cpu", "gpu")

    @property
    def tasks(self) -> tuple[str, ...]:
        """Tasks that it is for, and whose annotations it keeps right: what moves pixels moves boxes, outlines, masks and points with them."""
        return _OBJECT_TASKS if self.needs_objects else _TASKS


def _loaded(module: str) -> Any:
    """Import a module that imports albumentations, and not the PyTorch that albumentations brings in where it is installed.

    It does so for two transforms that the catalogue has not, and every worker would hold half a gigabyte more and start seconds later.
    """
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # no look at the network on import
    if "albumentations" in sys.modules or "torch" in sys.modules:
        return importlib.import_module(module)
    # albumentations takes the module's absence for granted; None is Python's own mark for "do not import".
    hidden: dict[str, Any] = sys.modules
    hidden["albumentations.pytorch"] = None
    try:
        return importlib.import_module(module)
    finally:
        hidden.pop("albumentations.pytorch", None)
