"""What a caller should know of an answer beside the answer."""

from __future__ import annotations

from oteo_core.datasets import Finding, Severity
from oteo_core.packages import ModelPackage
from oteo_gateway.prediction.preparation import PreparedImage
from oteo_gateway.prediction.tiling import worth_tiling


def notes_of(prepared: PreparedImage, package: ModelPackage) -> tuple[Finding, ...]:
    """Say how an image was looked at, where that is not as the caller may think."""
    size, policy = (prepared.header.width, prepared.header.height), package.input
    if prepared.tiles is not None:
        count = len(prepared.tiles.corners)
        words = f"Looked at in {count} overlapping tiles of {policy.width} x {policy.height} at the scale of the training."
        return (Finding(Severity.INFO, "TILED", words),)
    if worth_tiling(size, package):
        words = "the image was made smaller than the training's scale; with tiling on it is looked at piece by piece"
        sizes = f"{size[0]} x {size[1]} pixels for an input of {policy.width} x {policy.height}"
        return (Finding(Severity.INFO, "IMAGE_SHRUNK", f"{sizes}: {words}."),)
    return ()
