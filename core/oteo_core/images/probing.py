"""Which module reads the structure of which format."""

from __future__ import annotations

from collections.abc import Callable

from oteo_core.errors import OteoError
from oteo_core.images import jpeg, others, png, tiff
from oteo_core.images.header import ImageHeader, Layout, format_of, unreadable

_READERS: dict[str, Callable[[bytes], Layout]] = {"png": png.layout, "jpeg": jpeg.layout, "tiff": tiff.layout}


def layout_of(data: bytes) -> Layout:
    """Read a file's header and check that its structure is complete, without decoding.

    Raises
    ------
    InvalidArgument
        UNREADABLE_IMAGE, TRUNCATED_IMAGE or UNSUPPORTED_FORMAT.
    """
    name = format_of(data)
    try:
        layout = _READERS[name](data) if name in _READERS else others.layout(data, name)
    except (OteoError, MemoryError):
        raise
    except Exception as exc:  # a hostile header may break a parser anywhere
        raise unreadable(f"its {name} header is broken ({type(exc).__name__}: {exc})") from exc
    if layout.header.width < 1 or layout.header.height < 1:
        raise unreadable(f"its header declares {layout.header.width} x {layout.header.height} pixels")
    return layout


def probe(data: bytes) -> ImageHeader:
    """Read an image's header without decoding pixels.

    Parameters
    ----------
    data
        The whole file, encoded.

    Raises
    ------
    InvalidArgument
        UNREADABLE_IMAGE, TRUNCATED_IMAGE (the header itself is cut) or UNSUPPORTED_FORMAT.
    """
    return layout_of(data).header
