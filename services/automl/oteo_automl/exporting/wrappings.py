"""What is put around a trained network to serve it (calibration, decoding, mirroring), written down as settings and built again."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from oteo_automl.candidates.modules import SavedModule, build

Spec = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Wrapping:
    """A kind of module that is not a `SavedModule` itself.

    Parameters
    ----------
    place
        ``module:Class``; imported when one is met or built.
    inner
        Name of the attribute, and of the setting, that holds what is wrapped.
    settings
        Gives the other settings of a module, JSON values.
    make
        Builds one from the class, what is wrapped, and the settings.
    """

    place: str
    inner: str
    settings: Callable[[Any], Spec]
    make: Callable[[Any, nn.Module, Mapping[str, Any]], nn.Module]


WRAPPINGS: dict[str, Wrapping] = {
    "served-classifier": Wrapping(
        "oteo_automl.packaging.served:ServedClassifier",
        "network",
        lambda module: {"temperature": float(module.temperature), "maps": module.maps},
        lambda cls, inner, given: cls(inner, given["temperature"], maps=given.get("maps", False)),
    ),
    "served-labels": Wrapping(
        "oteo_automl.packaging.served:ServedLabels",
        "network",
        lambda module: {"scale": module.scale.tolist(), "bias": module.bias.tolist(), "maps": module.maps},
        lambda cls, inner, given: cls(inner, given["scale"], given["bias"], maps=given.get("maps", False)),
    ),
}
"""By the kind that stands in a spec."""


def describe(module: nn.Module) -> Spec | None:
    """Give the spec of a module and of all that it wraps; None where one of them is of a kind that cannot be written down."""
    if isinstance(module, SavedModule):
        return module.spec()
    for kind, wrapping in WRAPPINGS.items():
        home, _, name = wrapping.place.partition(":")
        if type(module).__module__ == home and type(module).__name__ == name:
            inner = describe(getattr(module, wrapping.inner))
            return None if inner is None else {"kind": kind, "settings": {wrapping.inner: inner, **wrapping.settings(module)}}
    return None


def rebuild(spec: Mapping[str, Any]) -> nn.Module:
    """Build what `describe` described; its tensors are not yet filled.

    Raises
    ------
    ValueError
        A kind that is not known.
    """
    wrapping = WRAPPINGS.get(str(spec["kind"]))
    if wrapping is None:
        return build(spec)
    home, _, name = wrapping.place.partition(":")
    settings = spec["settings"]
    return wrapping.make(getattr(importlib.import_module(home), name), rebuild(settings[wrapping.inner]), settings)
