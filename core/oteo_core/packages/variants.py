"""Variants of a package: what its training kept beside the model, to be served or exported in its place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oteo_core.errors import FailedPrecondition

if TYPE_CHECKING:
    from oteo_core.packages.manifest import ModelPackage

FP16, INT8, BF16 = "fp16", "int8", "bf16"
KINDS = (FP16, INT8, BF16)
FOLDER = "variants"
"""Folder of the package."""

GRAPHS = (FP16, INT8)
"""Variants that are graphs of their own; the other is the model's graph under another configuration of Triton."""


def variant_path(kind: str) -> str:
    """Give the path, inside a package, of what makes a variant: its graph, or Triton's configuration."""
    return f"{FOLDER}/{kind}.{'onnx' if kind in GRAPHS else 'pbtxt'}"


def check_variant(package: ModelPackage, kind: str, field: str = "variant") -> None:
    """Refuse a variant that a package does not hold.

    Raises
    ------
    FailedPrecondition
        ``NO_VARIANT``, with the reason that its training gave.
    """
    if variant_path(kind) in package.files:
        return
    said = next((one["reason"] for one in package.details.get("variants", []) if one["kind"] == kind), "")
    raise FailedPrecondition(
        f"{package.name} has no {kind} variant" + (f" ({said})" if said else ": none was asked for when it was trained"),
        reason="NO_VARIANT",
        field=field,
    )
