"""Requests for predictions, as a person says them."""

from __future__ import annotations

import os
from pathlib import Path

from oteo.errors import OteoApiError
from oteo.names import enum_name, resource
from oteo_protos.gateway.v1 import inference_pb2
from oteo_protos.type.v1 import image_pb2


def image_source(image: bytes | str | os.PathLike[str]) -> image_pb2.ImageSource:
    """Give an image for a request: encoded bytes, a file, or a dataset sample's name (``datasets/…/samples/…``).

    Raises
    ------
    OteoApiError
        NOT_FOUND, reason FILE_NOT_FOUND.
    """
    if isinstance(image, bytes):
        return image_pb2.ImageSource(content=image)
    if isinstance(image, str) and image.startswith("datasets/") and "/samples/" in image and not Path(image).exists():
        return image_pb2.ImageSource(sample=image)
    try:
        return image_pb2.ImageSource(content=Path(image).expanduser().read_bytes())
    except OSError as error:
        raise OteoApiError("NOT_FOUND", f"cannot read {image}: {error.strerror}", reason="FILE_NOT_FOUND", field="image") from None


def predict_request(
    deployment: str,
    image: bytes | str | os.PathLike[str],
    *,
    top_k: int = 0,
    operating_point: str = "",
    score_threshold: float | None = None,
    explain: bool = False,
    draw: bool = False,
    frame: int | None = None,
    tiling: bool | None = None,
    masks: str | None = None,
    alias: str = "",
    adapt: str | None = None,
) -> inference_pb2.PredictRequest:
    """Make a request.

    Parameters
    ----------
    deployment
        Short or full name.
    image
        Encoded bytes (PNG, JPEG, TIFF, DICOM), a path, or a dataset sample's name (``datasets/…/samples/…``).
    top_k
        Classes to give, the likeliest first; 0: all.
    operating_point
        Threshold to decide by, as the model's package names it; empty: its default.
    score_threshold
        Least score of objects, 0 to 1; None: the package's.
    explain
        Whether to give a map of what a classifier looked at.
    draw
        Whether to give the image with the answer drawn over it.
    frame
        Frame or page, from 0; None: the first.
    tiling
        Whether a large image is looked at by tiles; None: as the package says.
    masks
        ``"run-lengths"``, ``"polygons"`` or ``"none"``; None: run lengths.
    alias
        The model that must answer, by its alias in the deployment.
    adapt
        ``"off"``, ``"suggest"`` or ``"auto"``: whether the image is translated to the model's domain first; None: the deployment's setting.

    Raises
    ------
    OteoApiError
        NOT_FOUND (FILE_NOT_FOUND), INVALID_ARGUMENT (UNKNOWN_VALUE).
    """
    request = inference_pb2.PredictRequest(
        deployment=resource("deployments", deployment),
        image=image_source(image),
        top_k=top_k,
        operating_point=operating_point,
        explain=explain,
        draw=draw,
        alias=alias,
        tiling="TILING_UNSPECIFIED" if tiling is None else "TILING_ON" if tiling else "TILING_OFF",
        mask_encoding=enum_name(inference_pb2.MaskEncoding, "MASK_ENCODING_", masks, "masks"),
        adapt=enum_name(inference_pb2.AdaptMode, "ADAPT_MODE_", adapt, "adapt"),
    )
    if score_threshold is not None:
        request.score_threshold = score_threshold
    if frame is not None:
        request.frame = frame
    return request
