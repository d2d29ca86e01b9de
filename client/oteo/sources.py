"""Images as the contract takes them."""

from __future__ import annotations

import os
from pathlib import Path

from oteo.errors import OteoApiError
from oteo_protos.type.v1 import image_pb2


def image_source(image: bytes | str | os.PathLike[str]) -> image_pb2.ImageSource:
    """Give the message of an image.

    Parameters
    ----------
    image
        Encoded bytes, a path, or a dataset sample's name (``datasets/…/samples/…``).

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
