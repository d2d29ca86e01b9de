"""What a caller should know of an answer beside the answer."""

from __future__ import annotations

from dataclasses import dataclass

from oteo_core.packages import ModelPackage
from oteo_gateway.prediction.preparation import PreparedImage
from oteo_gateway.prediction.tiling import worth_tiling


@dataclass(frozen=True, slots=True)
class Note:
    """One finding: its code, a sentence, and whether somebody should look (a warning) or it is only good to know."""

    code: str
    message: str
    warning: bool = False


def notes_of(prepared: PreparedImage, package: ModelPackage) -> tuple[Note, ...]:
    """Say how an image was looked at, where that is not as the caller may think."""
    size, policy = (prepared.header.width, prepared.header.height), package.input
    if prepared.tiles is not None:
        count = len(prepared.tiles.corners)
        return (Note("TILED", f"Looked at in {count} overlapping tiles of {policy.width} x {policy.height} at the scale of the training."),)
    if worth_tiling(size, package):
        words = "the image was made smaller than the training's scale; with tiling on it is looked at piece by piece"
        return (Note("IMAGE_SHRUNK", f"{size[0]} x {size[1]} pixels for an input of {policy.width} x {policy.height}: {words}."),)
    return ()
